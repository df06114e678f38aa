//! The rule for names of pairs, nodes, volumes, VMs and users.

use crate::{Refusal, limits::NAME_MAX};

/// Accepts a name of 1 to [`NAME_MAX`] lower-case letters, digits and hyphens that begins with a letter and does not end
/// with a hyphen.
///
/// Such a name is safe as a host name, a file name and a cgroup name without quoting.
///
/// # Errors
/// [`Refusal::BadName`], which quotes at most 40 printable characters of the name.
pub fn check(name: &str) -> Result<(), Refusal> {
    let bytes = name.as_bytes();
    let good = (1..=NAME_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if good { Ok(()) } else { Err(Refusal::BadName { name: printable(name) }) }
}

/// The first 40 characters of a text that are not control characters, to be quoted in a refusal: the text comes from a
/// client.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn good_names_pass() {
        for name in ["a", "web-1", "db", "a2", &"x".repeat(32)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "Web", "1a", "-a", "a-", "a_b", "a b", "ä", "../x", "a\n", &"x".repeat(33)] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}
