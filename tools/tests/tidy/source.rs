//! Rules for one Rust source file: sizes, names, words that must not be there.

use crate::lexer::{Keep, code_of, is_word};

const LINES_BEFORE_TESTS_MAX: usize = 600;
const LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
const VAGUE_NAMES: [&str; 7] = ["util", "utils", "common", "misc", "manager", "helper", "helpers"];
const UNFINISHED_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Every fault of the file at `path` (relative to the workspace), each as one line.
pub(crate) fn faults_of(path: &str, source: &str) -> Vec<String> {
    let code = code_of(source, Keep::CodeOnly);
    let mut faults = Vec::new();
    check_length(path, &code, &mut faults);
    check_columns(source, &mut faults);
    check_functions(&code, &mut faults);
    check_words(path, &code, &mut faults);
    check_path(path, &mut faults);
    faults.into_iter().map(|fault| format!("{path}: {fault}")).collect()
}

/// Lines before the unit tests.
pub(crate) fn lines_before_tests(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    let tests_at = lines.windows(2).position(|pair| {
        pair[0].trim_end() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
    });
    tests_at.unwrap_or(lines.len())
}

fn check_length(path: &str, code: &str, faults: &mut Vec<String>) {
    let total = code.lines().count();
    if total > LINES_MAX {
        faults.push(format!("{total} lines, at most {LINES_MAX}"));
    }
    let before = lines_before_tests(code);
    let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
    if !is_test && before > LINES_BEFORE_TESTS_MAX {
        faults.push(format!("{before} lines before tests, at most {LINES_BEFORE_TESTS_MAX}"));
    }
}

fn check_columns(source: &str, faults: &mut Vec<String>) {
    for (number, line) in source.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            faults.push(format!("line {}: {columns} columns, at most {COLUMNS_MAX}", number + 1));
        }
    }
}

fn check_functions(code: &str, faults: &mut Vec<String>) {
    let mut line = 1;
    let mut start = 0;
    for (at, _) in code.match_indices("fn ") {
        line += code[start..at].matches('\n').count();
        start = at;
        let is_keyword = !code[..at].ends_with(is_word);
        let Some(length) = is_keyword.then(|| lines_of_function(&code[at..])).flatten() else {
            continue;
        };
        if length > FUNCTION_LINES_MAX {
            let name: String = code[at + 3..].chars().take_while(|&c| is_word(c)).collect();
            faults.push(format!(
                "line {line}: function {name} has {length} lines, at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
}

/// Lines from `fn` to the brace that closes its body; nothing for a declaration or a pointer type.
fn lines_of_function(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' | '=' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(code[..at].matches('\n').count() + 1),
            '}' => depth -= 1,
            _ => {}
        }
        if brackets < 0 {
            return None;
        }
    }
    None
}

fn check_words(path: &str, code: &str, faults: &mut Vec<String>) {
    for (number, line) in code.lines().enumerate() {
        let number = number + 1;
        for name in UNFINISHED_MACROS {
            if has_word(line, name) && line.contains(&format!("{name}!")) {
                faults.push(format!("line {number}: {name}! is unfinished work"));
            }
        }
        if has_word(line, "unsafe") && !path.starts_with("crates/uring/") {
            faults.push(format!("line {number}: unsafe outside crates/uring"));
        }
        if line.contains("#[ignore") || line.contains(", ignore") && line.contains("cfg_attr") {
            faults.push(format!("line {number}: an ignored test; delete it or let it run"));
        }
        for name in declared_names(line) {
            if words_of(name).iter().any(|word| VAGUE_NAMES.contains(&word.as_str())) {
                faults.push(format!("line {number}: {name} names no noun"));
            }
        }
    }
}

fn check_path(path: &str, faults: &mut Vec<String>) {
    for part in path.split(['/', '.', '_', '-']) {
        if VAGUE_NAMES.contains(&part) {
            faults.push(format!("the path says \"{part}\", which names no noun"));
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

fn declared_names(line: &str) -> Vec<&str> {
    let mut words = line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty());
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, "struct" | "enum" | "trait" | "mod" | "type") {
            names.extend(words.next());
        }
    }
    names
}

fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(last) = words.last_mut().filter(|_| c != '_') {
            last.extend(c.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(path: &str, source: &str, expected: &str) {
        let faults = faults_of(path, source);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
    }

    #[test]
    fn good_source_has_no_fault() {
        let source = "//! todo!() in words.\nfn f() {\n    let unsafe_words = \"unsafe\";\n}\n";
        assert_eq!(faults_of("broker/src/f.rs", source), Vec::<String>::new());
    }

    #[test]
    fn long_files_functions_and_lines_are_faults() {
        fault("a/src/b.rs", &"const A: u8 = 1;\n".repeat(601), "601 lines before tests");
        let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n}}\n", "\n".repeat(598));
        assert_eq!(faults_of("a/src/b.rs", &with_tests), Vec::<String>::new());
        let grown = with_tests.replace("mod tests {\n", &format!("mod t {{\n{}", "\n".repeat(400)));
        fault("a/src/b.rs", &grown, "1001 lines, at most 1000");
        fault("a/src/b.rs", &format!("// {}\n", "x".repeat(98)), "101 columns");
        let body = "    g();\n".repeat(69);
        fault("a/src/b.rs", &format!("fn f() {{\n{body}}}\n"), "line 1: function f has 71 lines");
        let nested =
            format!("mod m {{\n    fn f<T>(\n    )\n    where T: U,\n    {{\n{body}    }}}}");
        fault("a/src/b.rs", &nested, "line 2: function f has 74 lines");
        let short =
            format!("trait T {{\n    fn f(&self, a: [u8; 2]);\n{body}}}\ntype P = fn ();\n");
        assert_eq!(faults_of("a/src/b.rs", &short), Vec::<String>::new());
    }

    #[test]
    fn unfinished_unsafe_and_ignored_are_faults() {
        fault("a/src/b.rs", "fn f() { todo!() }", "todo!");
        fault("a/src/b.rs", "fn f() { dbg!(1); }", "dbg!");
        fault("a/src/b.rs", "fn f() { unimplemented!(\"x\") }", "unimplemented!");
        fault("a/src/b.rs", "unsafe impl Send for A {}", "unsafe outside");
        assert_eq!(faults_of("crates/uring/src/a.rs", "unsafe fn f() {}"), Vec::<String>::new());
        fault("a/src/b.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", "ignored test");
    }

    #[test]
    fn vague_names_are_faults() {
        fault("a/src/utils.rs", "", "names no noun");
        fault("a/src/disk_manager.rs", "", "names no noun");
        fault("a/src/b.rs", "pub(crate) struct GroupManager;", "GroupManager names no noun");
        fault("a/src/b.rs", "mod common;", "common names no noun");
        assert_eq!(faults_of("a/src/b.rs", "struct CommonAncestry;").len(), 1);
        assert_eq!(faults_of("a/src/b.rs", "struct Uncommon;"), Vec::<String>::new());
    }
}
