//! File names of slots, which contain the boot loader's counter.
//!
//! The format is systemd's *Automatic Boot Assessment*: `NAME+LEFT[-DONE].efi`.

use std::fmt;
use std::str::FromStr;

/// Number of tries of a freshly written slot.
pub const TRIES: u32 = 3;

const PREFIX: &str = "dyad-";
const SUFFIX: &str = ".efi";
const LONGEST_VERSION: usize = 64;

/// The tries of a slot that is not blessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Tries left. At 0 the boot loader uses the slot only if there is no other.
    pub left: u32,
    /// Number of tries used.
    pub done: u32,
}

/// The file name of a slot on the system partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName {
    /// Version of the system in the slot, by which the boot loader sorts.
    pub version: String,
    /// `None` if the slot is blessed.
    pub counter: Option<Counter>,
}

/// The file name is not that of a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a slot: expected dyad-VERSION.efi or dyad-VERSION+LEFT-DONE.efi")]
pub struct NameError(pub String);

impl EntryName {
    /// The name of a slot that was never booted.
    ///
    /// # Errors
    /// [`NameError`] if the version cannot be part of the name.
    pub fn fresh(version: &str) -> Result<Self, NameError> {
        let name = Self { version: version.into(), counter: Some(Counter { left: TRIES, done: 0 }) };
        if is_version(version) { Ok(name) } else { Err(NameError(name.to_string())) }
    }

    /// The name of the same slot once it is blessed.
    pub fn blessed(&self) -> Self {
        Self { version: self.version.clone(), counter: None }
    }

    /// Whether no tries are left, so that the boot loader skips the slot.
    pub fn is_bad(&self) -> bool {
        self.counter.is_some_and(|counter| counter.left == 0)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.version)?;
        if let Some(Counter { left, done }) = self.counter {
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
    // FAT may return names in another case than the one written.
    let lower = file.to_ascii_lowercase();
    let stem = lower.strip_suffix(SUFFIX)?;
    let stem = &file[..stem.len()];
    let body = if lower.starts_with(PREFIX) { &stem[PREFIX.len()..] } else { return None };
    let (version, counter) = match body.rsplit_once('+') {
        None => (body, None),
        Some((version, count)) => {
            let (left, done) = count.split_once('-').unwrap_or((count, "0"));
            (version, Some(Counter { left: number(left)?, done: number(done)? }))
        }
    };
    is_version(version).then(|| EntryName { version: version.into(), counter })
}

/// Parses a counter. The boot loader may keep its padding with zeros or drop it.
fn number(digits: &str) -> Option<u32> {
    (!digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

fn is_version(version: &str) -> bool {
    (1..=LONGEST_VERSION).contains(&version.len())
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'~' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in ["dyad-0.1.0+3-0.efi", "dyad-0.1.0+2-1.efi", "dyad-1.2.3~rc1.efi", "dyad-9-broken+0-3.efi"] {
            assert_eq!(name.parse::<EntryName>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn counters_are_read_in_every_form_the_loader_writes() {
        let counter = |name: &str| name.parse::<EntryName>().expect("a slot").counter;
        assert_eq!(counter("dyad-1+3.efi"), Some(Counter { left: 3, done: 0 }));
        assert_eq!(counter("dyad-1+02-01.efi"), Some(Counter { left: 2, done: 1 }));
        assert_eq!(counter("DYAD-1+2-1.EFI"), Some(Counter { left: 2, done: 1 }));
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
    fn only_a_used_up_counter_is_bad() {
        let bad = |name: &str| name.parse::<EntryName>().expect("a slot").is_bad();
        assert!(bad("dyad-1+0-3.efi"));
        assert!(!bad("dyad-1+1-2.efi"));
        assert!(!bad("dyad-1.efi"));
    }
}
