//! Writes the archive format of an initramfs: cpio "newc" (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in memory, to which entries are appended.
pub struct Archive {
    bytes: Vec<u8>,
    time: u64,
    entries: u32,
}

impl Archive {
    /// An empty archive; all entries get the time `time`, in seconds since 1970.
    pub fn new(time: u64) -> Self {
        Self { bytes: Vec::new(), time, entries: 0 }
    }

    /// Appends a folder with mode 755.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    /// Appends a regular file.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, FILE | permissions, (0, 0), content);
    }

    /// Appends a character device with these major and minor numbers.
    pub fn character_device(&mut self, name: &str, numbers: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE | 0o600, numbers, &[]);
    }

    /// Appends the end marker and returns the archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.time = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("an entry below 4 GiB");
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            u32::try_from(self.time).expect("a time before 2106"),
            size,
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).expect("a short name"),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_cpio_program_reads_the_archive() {
        let mut archive = Archive::new(1);
        archive.folder("dev");
        archive.character_device("dev/console", (5, 1));
        archive.file("init", 0o755, b"hello");
        let mut cpio = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio");
        cpio.stdin.take().expect("stdin").write_all(&archive.finish()).expect("written");
        let output = cpio.wait_with_output().expect("done");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        for part in ["drwxr-xr-x", "crw-------", "5,   1", "-rwxr-xr-x", "dev/console", "init"] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }
}
