//! A documentation comment adds something to the name that it stands at, or it is left out: `/// The disk.` at a field
//! `disk` tells nothing, and in the API and the command line such a comment is the whole help that people get.

use super::lexer::{Kind, Token, tokens};
use super::sources::{crate_folders, files, group_end, read, shown};

/// Fewest words of a documentation comment.
const WORDS_MIN: usize = 3;
/// Words of Rust that may stand between a comment and the name of its item.
const BEFORE_NAME: [&str; 17] = [
    "pub", "crate", "super", "self", "in", "async", "const", "unsafe", "extern", "static", "mut", "fn", "struct",
    "enum", "mod", "trait", "type",
];

/// Line and text of each documentation comment that says too little; adjacent lines are one comment.
fn too_short(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((marker, first)) = doc_line(&tokens[at]) else {
            at += 1;
            continue;
        };
        let (line, mut words) = (tokens[at].line, first.to_owned());
        at += 1;
        while let Some((_, more)) = tokens.get(at).and_then(doc_line).filter(|(same, _)| *same == marker) {
            words.push(' ');
            words.push_str(more);
            at += 1;
        }
        let words = words.trim();
        let count = words.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
        if count < WORDS_MIN || item_name(&tokens[at..]).is_some_and(|name| repeats(words, name)) {
            found.push((line, words.to_owned()));
        }
    }
    found
}

/// The marker and text of a line of a documentation comment.
fn doc_line<'a>(token: &Token<'a>) -> Option<(&'static str, &'a str)> {
    let is_line = token.kind == Kind::Comment && !token.text.starts_with("////");
    let marker = ["///", "//!"].into_iter().find(|marker| is_line && token.text.starts_with(marker))?;
    Some((marker, &token.text[marker.len()..]))
}

/// The name of the item at which the tokens begin; attributes and words such as `pub` are passed over.
fn item_name<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    let mut at = 0;
    loop {
        let token = tokens.get(at)?;
        if token.is('#') {
            at = group_end(tokens, at + 1);
        } else if token.kind == Kind::Comment || token.is('(') || token.is(')') || BEFORE_NAME.contains(&token.text) {
            at += 1;
        } else {
            return (token.kind == Kind::Identifier).then_some(token.text);
        }
    }
}

/// Whether a comment consists of a name and perhaps an article.
fn repeats(comment: &str, name: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let comment = comment.to_lowercase();
    let bare = ["the ", "a ", "an "].iter().find_map(|article| comment.strip_prefix(article)).unwrap_or(&comment);
    letters(bare) == letters(name)
}

#[test]
fn documentation_adds_to_the_name() {
    let mut failures = Vec::new();
    for folder in crate_folders().values() {
        for path in files(folder, "rs") {
            let found = too_short(&read(&path));
            failures.extend(found.into_iter().map(|(line, words)| format!("{}:{line}: {words}", shown(&path))));
        }
    }
    assert!(
        failures.is_empty(),
        "write at least {WORDS_MIN} words that the name does not say (unit, range, who sets it, what absence means), or \
         leave the comment out:\n{}",
        failures.join("\n")
    );
}

#[test]
fn a_comment_that_says_too_little_is_found() {
    let text = "
        //! The crate.
        //! It has two lines.
        /// The disk.
        #[serde(default)]
        pub disk: Disk,
        /// `host:port`.
        address: String,
        /// The last session number.
        pub(crate) last_session_number: u64,
        /// Bytes in use.
        used: u64,
        //// The rule.
        // The rule.
        /// One
        /// line of two.
        fn f() { \"/// The text.\" }
    ";
    let found = too_short(text);
    let expected = [(4, "The disk."), (7, "`host:port`."), (9, "The last session number.")];
    assert_eq!(found, expected.map(|(line, words)| (line, words.to_owned())));
}
