//! The version of QEMU.

/// The version of a QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// Parses the output of `qemu-system-x86_64 --version`.
    #[must_use]
    pub fn parse(output: &str) -> Option<Self> {
        let rest = output.strip_prefix("QEMU emulator version ")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(Version::parse(debian), Some(Version { major: 7, minor: 2 }));
        assert!(Version { major: 10, minor: 0 } > Version { major: 9, minor: 2 });
        assert_eq!(Version::parse("qemu"), None);
    }
}
