//! Rule: a documentation comment says more than the name, type and container of its item, or it is left out. `/// The
//! disk.` at a field `disk` adds nothing; in the API and the command line such a comment is the whole help that people
//! get.

use super::lexer::{Kind, Token, tokens};
use super::sources::{crate_folders, files, group_end, read, shown};
use super::words::words_of;

use std::collections::BTreeSet;

/// Least number of words in a documentation comment.
const WORDS_MIN: usize = 3;
/// Words that do not count: they say nothing beside the name of an item.
const FILLERS: [&str; 36] = [
    "a", "all", "an", "and", "are", "as", "at", "by", "each", "for", "from", "has", "in", "is", "it", "its", "name",
    "names", "now", "number", "of", "on", "one", "that", "the", "this", "to", "was", "what", "where", "which", "who",
    "whose", "with", "these", "those",
];

/// Line and text of each documentation comment that has too few words or only repeats; adjacent lines are one comment.
fn empty_doc_comments(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // The words of the declaration in front of each open brace, the innermost brace last.
    let mut containers: Vec<BTreeSet<String>> = Vec::new();
    let (mut at, mut declaration) = (0, 0);
    while at < tokens.len() {
        let Some((marker, first)) = doc_line(&tokens[at]) else {
            if tokens[at].is('{') {
                containers.push(declared_words(&tokens[declaration..at]));
            } else if tokens[at].is('}') {
                containers.pop();
            }
            at += 1;
            if ends_declaration(&tokens[at - 1]) {
                declaration = at;
            }
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
        let mut known = declared_words(&tokens[at..]);
        known.extend(containers.last().into_iter().flatten().cloned());
        if count < WORDS_MIN || marker == "///" && only_repeats(words, &known) {
            found.push((line, words.to_owned()));
        }
    }
    found
}

/// Marker and text of a line of a documentation comment; `None` for any other token.
fn doc_line<'a>(token: &Token<'a>) -> Option<(&'static str, &'a str)> {
    let is_line = token.kind == Kind::Comment && !token.text.starts_with("////");
    let marker = ["///", "//!"].into_iter().find(|marker| is_line && token.text.starts_with(marker))?;
    Some((marker, &token.text[marker.len()..]))
}

/// Whether a declaration ends with this token, unless it stands in parentheses.
fn ends_declaration(token: &Token<'_>) -> bool {
    [',', ';', '{', '}'].iter().any(|end| token.is(*end))
}

/// The words of the declaration at which the tokens begin: of its name, its type and its parameters.
fn declared_words(tokens: &[Token<'_>]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(token) = tokens.get(at) {
        if token.is('#') && tokens.get(at + 1).is_some_and(|next| next.is('[')) {
            at = group_end(tokens, at + 1);
            continue;
        }
        if depth == 0 && (ends_declaration(token) || token.is(')')) {
            break;
        }
        depth = depth + usize::from(token.is('(')) - usize::from(token.is(')'));
        if token.kind == Kind::Identifier {
            words.extend(words_of(token.text).iter().map(|word| stem(word).to_owned()));
        }
        at += 1;
    }
    words
}

/// Whether a comment has no word beside the `known` ones and [`FILLERS`].
fn only_repeats(comment: &str, known: &BTreeSet<String>) -> bool {
    let words = comment.split(|c: char| !c.is_alphanumeric()).flat_map(words_of);
    words.into_iter().all(|word| FILLERS.contains(&word.as_str()) || known.contains(stem(&word)))
}

/// A word without its ending, so that `volumes` and `volume`, `opened` and `open` count as the same word.
fn stem(word: &str) -> &str {
    let endings = ["ing", "ies", "es", "ed", "s", "e"];
    endings.iter().find_map(|ending| word.strip_suffix(ending).filter(|stem| stem.len() > 2)).unwrap_or(word)
}

#[test]
fn no_doc_comment_only_repeats_the_name() {
    let mut failures = Vec::new();
    for folder in crate_folders().values() {
        for path in files(folder, "rs") {
            let found = empty_doc_comments(&read(&path));
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
        /// Number of the session.
        session: Session,
        //// The rule.
        // The rule.
        /// One
        /// line of two.
        fn f() { \"/// The text.\" }
        #[derive(Ended)]
        impl SessionStore<'_> {
            /// Ends a session.
            pub fn end(&mut self, token: Token<'_>) {}
            /// Ends the sessions of a user at once.
            fn end_all(&mut self, user: Name) { f(); }
            /// Ended by a user.
            fn ended(&self);
        }
    ";
    let found = empty_doc_comments(text);
    let expected = [
        (4, "The disk."),
        (7, "`host:port`."),
        (9, "The last session number."),
        (13, "Number of the session."),
        (22, "Ends a session."),
    ];
    assert_eq!(found, expected.map(|(line, words)| (line, words.to_owned())));
}
