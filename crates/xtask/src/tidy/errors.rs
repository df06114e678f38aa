//! Rule: the errors of a library are types: no `anyhow`, and no `pub` function whose error is a `String`.
//!
//! A caller that decides by the cause would have to compare text, and a text has no fields for disk, file or node.
//! Programs show causes to people and use `anyhow`: `main.rs`, `src/bin`, and the crates of [`PROGRAMS`].

use super::lexer::Token;
use super::sources::{crate_folders, files, read, shown, split};

/// Short names of the crates that are programs, tests or tools as a whole.
const PROGRAMS: [&str; 7] = ["cli", "counter", "init", "process-tests", "rig", "sim", "xtask"];
/// Files whose `pub` functions may have a text as their error, each with the reason.
const ALLOWED: [(&str, &str); 1] =
    [("crates/mirror/src/oracle.rs", "the error is a finding, which a test prints: for tests only")];

/// Line and kind of each violation of the rule.
fn untyped_errors(tokens: &[Token<'_>]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text == "anyhow" {
            found.push((token.line, "anyhow"));
        }
        if token.text == "pub" && returns_text_error(&tokens[at + 1..]) {
            found.push((token.line, "a text as error"));
        }
    }
    found
}

/// Whether these tokens, which stand behind `pub`, begin a function that returns `Result<_, String>`.
fn returns_text_error(item: &[Token<'_>]) -> bool {
    let keyword = item.iter().take_while(|token| matches!(token.text, "async" | "const" | "unsafe")).count();
    if item.get(keyword).is_none_or(|token| token.text != "fn") {
        return false;
    }
    let end = item.iter().position(|token| matches!(token.text, "{" | ";" | "where")).unwrap_or(item.len());
    let signature = &item[..end];
    let arrow = signature.windows(2).rposition(|pair| pair[0].is('-') && pair[1].is('>'));
    let result = arrow.map_or(&[][..], |arrow| &signature[arrow + 2..]);
    matches!(result, [name, .., comma, error, close]
        if name.text == "Result" && comma.is(',') && error.text == "String" && close.is('>'))
}

#[test]
fn errors_of_libraries_are_types() {
    let mut failures = Vec::new();
    for (name, folder) in crate_folders() {
        if PROGRAMS.contains(&name.as_str()) {
            continue;
        }
        for path in files(&folder.join("src"), "rs") {
            let place = shown(&path);
            let is_program = place.ends_with("/src/main.rs") || place.contains("/src/bin/");
            if is_program || ALLOWED.iter().any(|(file, _)| *file == place) {
                continue;
            }
            let text = read(&path);
            let found = untyped_errors(&split(&text).shipped);
            failures.extend(found.into_iter().map(|(line, cause)| format!("{place}:{line}: {cause}")));
        }
    }
    assert!(
        failures.is_empty(),
        "make the error a thiserror type with disk, peer, volume or path:\n{}",
        failures.join("\n")
    );
}

#[test]
fn an_untyped_error_is_found() {
    let text = "
        use anyhow::Context;
        pub fn map(&self) -> HashMap<u64, String> {}
        pub async fn read(path: &Path) -> Result<Vec<u8>, String> {}
        pub fn typed() -> Result<(), ReadError> {}
        fn private() -> Result<(), String> {}
        pub(crate) fn inner() -> Result<(), String> {}
        #[cfg(test)]
        mod tests { use anyhow::Result; }
    ";
    assert_eq!(untyped_errors(&split(text).shipped), [(2, "anyhow"), (4, "a text as error")]);
}
