//! QEMU's version, on which some options of its command line depend.

/// Major and minor number of QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
}

impl QemuVersion {
    /// Parses the output of `qemu-system-x86_64 --version`. `None` = it has another form.
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
    fn the_version_is_read_from_the_output_of_qemu() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(QemuVersion::parse(debian), Some(QemuVersion { major: 7, minor: 2 }));
        assert!(QemuVersion { major: 10, minor: 0 } > QemuVersion { major: 9, minor: 2 });
        assert_eq!(QemuVersion::parse("qemu"), None);
    }
}
