//! The rule for names of pairs, nodes, volumes, VMs and users.

use crate::{Refusal, limits::NAME_MAX};

/// Accepts 1 to 32 lower-case letters, digits and hyphens that begin with a letter and do not end with a hyphen.
///
/// Such a name is safe as a host name, a file name and a cgroup name without quoting.
///
/// # Errors
/// [`Refusal::BadName`] with the name, made printable.
pub fn check(name: &str) -> Result<(), Refusal> {
    let bytes = name.as_bytes();
    let good = (1..=NAME_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if good { Ok(()) } else { Err(Refusal::BadName { name: printable(name) }) }
}

/// The text without control characters and cut to 40 characters, so that a refusal can quote it.
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
