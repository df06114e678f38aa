//! Patterns for paths: `*` stays within one name, `**` crosses folders.

/// Whether `pattern` describes all of `path`.
pub fn matches(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return ends(path).any(|tail| matches(rest, tail));
    }
    match pattern.chars().next() {
        None => path.is_empty(),
        Some('*') => {
            let name = path.find('/').unwrap_or(path.len());
            ends(path).filter(|tail| path.len() - tail.len() <= name).any(|tail| matches(&pattern[1..], tail))
        }
        Some(head) => path.strip_prefix(head).is_some_and(|tail| matches(&pattern[head.len_utf8()..], tail)),
    }
}

/// All tails of a text, the longest first.
fn ends(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, _)| &text[at..]).chain([""])
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn one_star_stays_in_its_folder() {
        assert!(matches("a/*.so", "a/b.so"));
        assert!(!matches("a/*.so", "a/b/c.so"));
        assert!(matches("a/**", "a/b/c.so"));
        assert!(matches("a/pata_**", "a/pata_x/y"));
        assert!(!matches("a/**", "b/c"));
        assert!(matches("a/b", "a/b"));
        assert!(!matches("a/b", "a/bc"));
    }
}
