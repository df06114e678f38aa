//! The file names of slots, which contain version and counter for the boot loader.
//!
//! The format is systemd's *Automatic Boot Assessment*: `NAME+LEFT[-DONE].efi`.

use std::fmt;
use std::str::FromStr;

/// Number of times that the boot loader may try a newly written slot.
pub const INITIAL_TRIES: u32 = 3;

const PREFIX: &str = "dyad-";
const SUFFIX: &str = ".efi";
/// Maximum length of a version, in characters.
const MAX_VERSION_LENGTH: usize = 64;

/// The counter in the name of a slot that is not blessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryCounter {
    /// Number of tries that are left. At 0 the boot loader uses the slot only if there is no other.
    pub left: u32,
    /// Number of tries that were used.
    pub done: u32,
}

/// The file name of a slot on the system partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName {
    /// Version of the system in the slot, by which the boot loader sorts.
    pub version: String,
    /// `None` if the slot is blessed.
    pub counter: Option<TryCounter>,
}

/// The error of a file name that is not the name of a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a slot: expected dyad-VERSION.efi or dyad-VERSION+LEFT-DONE.efi")]
pub struct NameError(pub String);

impl EntryName {
    /// The name of a new slot, which was never booted.
    ///
    /// # Errors
    /// [`NameError`] if the version cannot be part of the name.
    pub fn fresh(version: &str) -> Result<Self, NameError> {
        let name = Self { version: version.into(), counter: Some(TryCounter { left: INITIAL_TRIES, done: 0 }) };
        if is_version(version) { Ok(name) } else { Err(NameError(name.to_string())) }
    }

    /// The name of the same slot once it is blessed.
    pub fn blessed(&self) -> Self {
        Self { version: self.version.clone(), counter: None }
    }

    /// Whether the counter has no tries left, so that the boot loader uses the slot only if there is no other.
    pub fn has_no_tries_left(&self) -> bool {
        self.counter.is_some_and(|counter| counter.left == 0)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.version)?;
        if let Some(TryCounter { left, done }) = self.counter {
            write!(f, "+{left}-{done}")?;
        }
        f.write_str(SUFFIX)
    }
}

impl FromStr for EntryName {
    type Err = NameError;

    fn from_str(file: &str) -> Result<Self, NameError> {
        parse(file).ok_or_else(|| NameError(file.into()))
    }
}

fn parse(file: &str) -> Option<EntryName> {
    // A FAT file system may return a name in another case than it was written in.
    let lower = file.to_ascii_lowercase();
    let stem = lower.strip_suffix(SUFFIX)?;
    let stem = &file[..stem.len()];
    let body = if lower.starts_with(PREFIX) { &stem[PREFIX.len()..] } else { return None };
    let (version, counter) = match body.rsplit_once('+') {
        None => (body, None),
        Some((version, count)) => {
            let (left, done) = count.split_once('-').unwrap_or((count, "0"));
            (version, Some(TryCounter { left: parse_count(left)?, done: parse_count(done)? }))
        }
    };
    is_version(version).then(|| EntryName { version: version.into(), counter })
}

/// Parses one number of a counter. The boot loader may pad numbers with zeros.
fn parse_count(digits: &str) -> Option<u32> {
    (!digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Whether the version can be part of a slot's file name.
fn is_version(version: &str) -> bool {
    (1..=MAX_VERSION_LENGTH).contains(&version.len())
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'~' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_parsed_and_printed_is_unchanged() {
        for name in ["dyad-0.1.0+3-0.efi", "dyad-0.1.0+2-1.efi", "dyad-1.2.3~rc1.efi", "dyad-9-broken+0-3.efi"] {
            assert_eq!(name.parse::<EntryName>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn counters_are_parsed_in_each_form_that_the_boot_loader_writes() {
        let counter = |name: &str| name.parse::<EntryName>().expect("a slot").counter;
        assert_eq!(counter("dyad-1+3.efi"), Some(TryCounter { left: 3, done: 0 }));
        assert_eq!(counter("dyad-1+02-01.efi"), Some(TryCounter { left: 2, done: 1 }));
        assert_eq!(counter("DYAD-1+2-1.EFI"), Some(TryCounter { left: 2, done: 1 }));
        assert_eq!(counter("dyad-1.efi"), None);
    }

    #[test]
    fn other_files_are_not_slots() {
        for name in ["", "dyad-.efi", "dyad-1.efi.new", "linux-1.efi", "dyad-1+x.efi", "dyad-1+3-.efi", "dyad-a/b.efi"]
        {
            assert!(name.parse::<EntryName>().is_err(), "{name} was taken for a slot");
        }
    }

    #[test]
    fn only_a_counter_at_zero_has_no_tries_left() {
        let exhausted = |name: &str| name.parse::<EntryName>().expect("a slot").has_no_tries_left();
        assert!(exhausted("dyad-1+0-3.efi"));
        assert!(!exhausted("dyad-1+1-2.efi"));
        assert!(!exhausted("dyad-1.efi"));
    }
}
