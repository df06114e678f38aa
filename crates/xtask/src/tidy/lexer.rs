//! Splits Rust text into tokens, comments included ("The Rust Reference", chapter "Lexical structure").
//!
//! It tells identifiers, literals and comments apart, and gives the line where each begins. Each punctuation character
//! is a token; brackets are not matched.

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword; `r#` is not part of the text.
    Identifier,
    Lifetime,
    /// A number, character, byte or string.
    Literal,
    Punctuation,
    /// A line or block comment, documentation included.
    Comment,
}

/// A token of a Rust file, with its text and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Line of its first character, from 1.
    pub line: usize,
}

impl Token<'_> {
    /// Whether the token is this punctuation character.
    pub fn is(&self, character: char) -> bool {
        self.kind == Kind::Punctuation && self.text.starts_with(character)
    }
}

/// Cuts `text` into tokens.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (kind, len) = next(rest, first);
        let (whole, after) = rest.split_at(len);
        let text = if kind == Kind::Identifier { whole.strip_prefix("r#").unwrap_or(whole) } else { whole };
        found.push(Token { kind, text, line });
        line += whole.matches('\n').count();
        rest = after;
    }
    found
}

/// Kind and length in bytes of the token at the start of `rest`.
fn next(rest: &str, first: char) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if let Some(len) = string(rest) {
        return (Kind::Literal, len);
    }
    if let Some(quoted) = rest.strip_prefix('\'') {
        return quote(quoted);
    }
    if let Some(byte) = rest.strip_prefix("b'") {
        return (Kind::Literal, 2 + quoted_len(byte, '\''));
    }
    if first.is_ascii_digit() {
        return (Kind::Literal, number(rest));
    }
    if first == '_' || first.is_alphabetic() {
        let prefix = if rest.starts_with("r#") { 2 } else { 0 };
        return (Kind::Identifier, prefix + word(&rest[prefix..]));
    }
    (Kind::Punctuation, first.len_utf8())
}

/// Length of the identifier at the start of `rest`, in bytes like all lengths here.
fn word(rest: &str) -> usize {
    rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
}

/// Length of a number: digits, letters and `_`, and a point that a digit follows (`1..2` and `1.max(2)` end before it).
fn number(rest: &str) -> usize {
    let whole = word(rest);
    match rest[whole..].strip_prefix('.') {
        Some(fraction) if fraction.starts_with(|c: char| c.is_ascii_digit()) => whole + 1 + word(fraction),
        _ => whole,
    }
}

/// Length of a block comment; such comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Length of a string of any kind: `"…"`, `b"…"`, `c"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let mut body = &rest[prefix.len()..];
    let mut hashes = 0;
    if prefix.ends_with('r') {
        hashes = body.len() - body.trim_start_matches('#').len();
        body = &body[hashes..];
    }
    let inner = body.strip_prefix('"')?;
    let start = rest.len() - inner.len();
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(inner.find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    Some(start + quoted_len(inner, '"'))
}

/// Length of a quoted text, its closing `quote` included; a backslash hides the character behind it.
fn quoted_len(inner: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            _ if character == quote => return at + character.len_utf8(),
            _ => {}
        }
    }
    inner.len()
}

/// Kind and length of the token that a single quote begins; `quoted` is the text behind it. It is a character if an
/// escape, or one character and a second quote follow, else a lifetime.
fn quote(quoted: &str) -> (Kind, usize) {
    let mut characters = quoted.chars();
    let first = characters.next();
    if first == Some('\\') || characters.next() == Some('\'') {
        return (Kind::Literal, 1 + quoted_len(quoted, '\''));
    }
    (Kind::Lifetime, 1 + word(quoted))
}

#[test]
fn tokens_are_told_apart() {
    let text =
        "/// doc \"x\nfn r#type<'a>(x: &'a str) /* a /* b */ c */ { '\\'' '}' b'\"' 1.5e3 1..2 \"a\\\"//\" r#\"//\"# }";
    let found: Vec<_> = tokens(text).into_iter().map(|token| (token.kind, token.text)).collect();
    let of = |kind: Kind| found.iter().filter(|(k, _)| *k == kind).map(|(_, text)| *text).collect::<Vec<_>>();
    assert_eq!(of(Kind::Comment), ["/// doc \"x", "/* a /* b */ c */"]);
    assert_eq!(of(Kind::Identifier), ["fn", "type", "x", "str"]);
    assert_eq!(of(Kind::Lifetime), ["'a", "'a"]);
    assert_eq!(of(Kind::Literal), ["'\\''", "'}'", "b'\"'", "1.5e3", "1", "2", "\"a\\\"//\"", "r#\"//\"#"]);
    assert_eq!(tokens("a\n\n/* b\n */ c").last().map(|token| token.line), Some(4));
}
