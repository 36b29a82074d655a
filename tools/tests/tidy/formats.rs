//! Each document in `docs/formats` names the file that implements it and holds that file's hash, so
//! that a codec does not change without its document.
//!
//! The line is `Codec: <path> <hash>`. The hash covers the code before the unit tests, without
//! comments and white space: moving a line changes nothing, a new constant does.

use crate::lexer::{Keep, code_of};
use crate::source::lines_before_tests;

/// Every fault of one document; `read` gives the text of a source file, if it exists.
pub(crate) fn faults_of(
    document: &str,
    text: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let codecs: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Codec: ")).collect();
    if codecs.is_empty() {
        return vec![format!("{document}: no line \"Codec: <path of the source> <hash>\"")];
    }
    let mut faults = Vec::new();
    for codec in codecs {
        let mut words = codec.split_whitespace();
        let path = words.next().unwrap_or_default();
        let Some(source) = read(path) else {
            faults.push(format!("{document}: {path} does not exist"));
            continue;
        };
        let actual = hash_of(&source);
        if words.next() != Some(actual.as_str()) {
            faults.push(format!(
                "{document}: {path} has changed: check the text, then write\nCodec: {path} {actual}"
            ));
        }
    }
    faults
}

/// FNV-1a over the code: it is there to notice a change, not to resist one.
fn hash_of(source: &str) -> String {
    let code = code_of(source, Keep::CodeAndStrings);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let kept = code.lines().take(lines_before_tests(&code)).flat_map(str::bytes);
    for byte in kept.filter(|byte| !byte.is_ascii_whitespace()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "//! Words.\nconst MAGIC: &[u8] = b\"WFR1\";\n#[cfg(test)]\nmod tests {}\n";

    fn faults(text: &str, source: &str) -> Vec<String> {
        faults_of("a.md", text, |path| (path == "a.rs").then(|| source.to_owned()))
    }

    #[test]
    fn a_document_without_codec_or_with_a_wrong_path_is_a_fault() {
        assert!(faults("# A\n", SOURCE)[0].contains("no line"));
        assert!(faults("Codec: b.rs 0\n", SOURCE)[0].contains("does not exist"));
    }

    #[test]
    fn a_changed_codec_is_a_fault_and_the_right_line_is_printed() {
        let first = faults("Codec: a.rs\n", SOURCE);
        let right = first[0].lines().nth(1).expect("the line to write").to_owned();
        assert_eq!(faults(&right, SOURCE), Vec::<String>::new());
        assert_eq!(faults(&right, &SOURCE.replace("Words", "More words")), Vec::<String>::new());
        assert_eq!(faults(&right, &SOURCE.replace("tests {}", "tests { }")), Vec::<String>::new());
        assert_eq!(faults(&right, &SOURCE.replace("WFR1", "WFR2")).len(), 1);
    }
}
