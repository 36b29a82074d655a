//! Blanks what is not code, so that a rule about code does not trip over a comment or a string.

use std::iter::Peekable;
use std::str::Chars;

/// What a rule wants to see besides code.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Keep {
    CodeOnly,
    CodeAndStrings,
}

/// The source with comments (and, as asked, the contents of literals) replaced by spaces. Line
/// breaks stay, so that line numbers do.
pub(crate) fn code_of(source: &str, keep: Keep) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    let mut previous = ' ';
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => skip_line(&mut rest),
            '/' if rest.peek() == Some(&'*') => skip_block(&mut rest, &mut out),
            '"' => copy_string(&mut rest, &mut out, keep),
            'r' | 'b' | 'c' if !is_word(previous) => copy_prefixed(c, &mut rest, &mut out, keep),
            '\'' => copy_quote(&mut rest, &mut out, keep),
            _ => out.push(c),
        }
        previous = out.chars().next_back().unwrap_or(' ');
    }
    out
}

/// Part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn skip_line(rest: &mut Peekable<Chars<'_>>) {
    while rest.peek().is_some_and(|&c| c != '\n') {
        rest.next();
    }
}

fn skip_block(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    rest.next();
    let mut depth = 1;
    while depth > 0 {
        match rest.next() {
            None => return,
            Some('*') if rest.next_if_eq(&'/').is_some() => depth -= 1,
            Some('/') if rest.next_if_eq(&'*').is_some() => depth += 1,
            Some('\n') => out.push('\n'),
            Some(_) => {}
        }
    }
}

fn push_literal(c: char, out: &mut String, keep: Keep) {
    let shown = keep == Keep::CodeAndStrings || c == '\n';
    out.push(if shown { c } else { ' ' });
}

fn copy_string(rest: &mut Peekable<Chars<'_>>, out: &mut String, keep: Keep) {
    out.push('"');
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => {
                push_literal(c, out, keep);
                if let Some(escaped) = rest.next() {
                    push_literal(escaped, out, keep);
                }
            }
            _ => push_literal(c, out, keep),
        }
    }
    out.push('"');
}

/// `r"`, `r#"`, `b"`, `br#"`, `c"`, `b'`; anything else is an identifier's first letter.
fn copy_prefixed(first: char, rest: &mut Peekable<Chars<'_>>, out: &mut String, keep: Keep) {
    out.push(first);
    let mut raw = first == 'r';
    if !raw && let Some(second) = rest.next_if_eq(&'r') {
        out.push(second);
        raw = true;
    }
    let mut hashes = 0;
    while raw && rest.next_if_eq(&'#').is_some() {
        out.push('#');
        hashes += 1;
    }
    match rest.peek() {
        Some('"') if raw => {
            rest.next();
            copy_raw(hashes, rest, out, keep);
        }
        Some('"') => {
            rest.next();
            copy_string(rest, out, keep);
        }
        _ => {}
    }
}

fn copy_raw(hashes: usize, rest: &mut Peekable<Chars<'_>>, out: &mut String, keep: Keep) {
    out.push('"');
    while let Some(c) = rest.next() {
        if c == '"' {
            let mut seen = 0;
            while seen < hashes && rest.next_if_eq(&'#').is_some() {
                seen += 1;
            }
            if seen == hashes {
                out.push('"');
                return;
            }
        }
        push_literal(c, out, keep);
    }
}

/// A character literal or a lifetime; after the quote only a literal has its closing quote near.
fn copy_quote(rest: &mut Peekable<Chars<'_>>, out: &mut String, keep: Keep) {
    out.push('\'');
    let mut ahead = rest.clone();
    let first = ahead.next();
    if first != Some('\\') && ahead.next() != Some('\'') {
        return;
    }
    if let Some(c) = rest.next() {
        push_literal(c, out, keep);
        if c == '\\'
            && let Some(escaped) = rest.next()
        {
            push_literal(escaped, out, keep);
        }
    }
    for c in rest.by_ref() {
        if c == '\'' {
            break;
        }
        push_literal(c, out, keep);
    }
    out.push('\'');
}

#[test]
fn comments_strings_and_characters_are_blanked() {
    let source = "a // todo!\n/* x /* y */ \n */ b \"un\\\"safe\" c r#\"d\"e\"# '\"' '\\'' 'life f";
    let code = code_of(source, Keep::CodeOnly);
    assert_eq!(code.lines().count(), source.lines().count());
    for gone in ["todo", "safe", "x", "d\"e"] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    for kept in ["a ", "b \"", " c r#", "'life f"] {
        assert!(code.contains(kept), "{kept} not in {code}");
    }
    assert!(code_of(source, Keep::CodeAndStrings).contains("safe"));
}
