//! Patterns for paths: `*` matches within one name, `**` matches across folders.

/// A pattern for whole paths; all other characters match themselves.
#[derive(Debug, Clone, Copy)]
pub struct Pattern<'a>(pub &'a str);

impl Pattern<'_> {
    /// Whether the pattern matches the whole `path`.
    pub fn matches(self, path: &str) -> bool {
        let Pattern(pattern) = self;
        if let Some(rest) = pattern.strip_prefix("**") {
            return suffixes(path).any(|tail| Pattern(rest).matches(tail));
        }
        match pattern.chars().next() {
            None => path.is_empty(),
            Some('*') => {
                let name = path.find('/').unwrap_or(path.len());
                let rest = Pattern(&pattern[1..]);
                suffixes(path).filter(|tail| path.len() - tail.len() <= name).any(|tail| rest.matches(tail))
            }
            Some(head) => {
                let rest = Pattern(&pattern[head.len_utf8()..]);
                path.strip_prefix(head).is_some_and(|tail| rest.matches(tail))
            }
        }
    }
}

/// All suffixes of a text, the longest first, the empty one last.
fn suffixes(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, _)| &text[at..]).chain([""])
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn one_star_stays_in_its_folder() {
        assert!(Pattern("a/*.so").matches("a/b.so"));
        assert!(!Pattern("a/*.so").matches("a/b/c.so"));
        assert!(Pattern("a/**").matches("a/b/c.so"));
        assert!(Pattern("a/pata_**").matches("a/pata_x/y"));
        assert!(!Pattern("a/**").matches("b/c"));
        assert!(Pattern("a/b").matches("a/b"));
        assert!(!Pattern("a/b").matches("a/bc"));
    }
}
