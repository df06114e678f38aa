//! Builds a unified kernel image: an EFI program that holds kernel, command line and initramfs as sections.
//!
//! Sections and their meaning are those of the UAPI group's *Unified Kernel Image* specification.

use super::debian::DebianTree;
use crate::host;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Alignment of sections in memory, in bytes.
const PAGE_BYTES: u64 = 4096;

/// Parts of a unified kernel image besides the initramfs.
#[derive(Clone, Copy)]
pub struct UkiParts<'a> {
    /// Tree with kernel and stub.
    pub debian: &'a DebianTree,
    /// Folder for intermediate files.
    pub work: &'a Path,
    /// Content of `os-release`, from which the boot loader reads name and version.
    pub os_release: &'a str,
    /// Kernel command line.
    pub cmdline: &'a str,
}

impl UkiParts<'_> {
    /// Writes the image `target` with this initramfs.
    pub fn build(&self, initramfs: &[u8], target: &Path) -> Result<PathBuf> {
        let part = |name: &str, content: &[u8]| -> Result<PathBuf> {
            let path = self.work.join(name);
            fs::write(&path, content).with_context(|| format!("Cannot write {}.", path.display()))?;
            Ok(path)
        };
        // The kernel comes last: it may be decompressed in place, and then overwrites the bytes behind it.
        let sections = [
            (".osrel", part("osrel", self.os_release.as_bytes())?),
            (".cmdline", part("cmdline", self.cmdline.as_bytes())?),
            (".uname", part("uname", self.debian.kernel_release()?.as_bytes())?),
            (".initrd", part("initrd", initramfs)?),
            (".linux", self.debian.kernel()?),
        ];
        let mut place = memory_end(&host::output(Command::new("objdump").args(["-h", "-w"]).arg(self.debian.stub()))?)?;
        let mut command = Command::new("objcopy");
        // objcopy then keeps the stub's time in the header: the time of the build must not enter the image.
        command.arg("--preserve-dates");
        for (name, path) in &sections {
            place = place.next_multiple_of(PAGE_BYTES);
            command.arg("--add-section").arg(format!("{name}={}", path.display()));
            command.arg("--set-section-flags").arg(format!("{name}=contents,alloc,load,readonly,data"));
            command.arg("--change-section-vma").arg(format!("{name}={place:#x}"));
            place += fs::metadata(path)?.len();
        }
        host::run_quietly(command.arg(self.debian.stub()).arg(target))?;
        Ok(target.into())
    }
}

/// Address behind the last section in memory. `headers` is the output of `objdump -h`: number, name, size, address, …
/// of each section.
fn memory_end(headers: &str) -> Result<u64> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.first()?.parse::<u32>().ok()?;
        let number = |at: usize| u64::from_str_radix(fields.get(at)?, 16).ok();
        Some(number(2)? + number(3)?)
    };
    headers.lines().filter_map(row).max().context("The stub has no sections.")
}

#[cfg(test)]
mod tests {
    use super::memory_end;

    #[test]
    fn the_end_is_that_of_the_last_section_in_memory() {
        let text = "\nx:  file format pei-x86-64\n\nSections:\nIdx Name Size VMA LMA File off Algn\n  \
                    0 .text 00000100 0000000140001000 0000000140001000 00000400 2**4 CONTENTS\n  \
                    1 .data 00000010 0000000140003000 0000000140003000 00000600 2**4 CONTENTS\n";
        assert_eq!(memory_end(text).expect("sections"), 0x1_4000_3010);
        assert!(memory_end("nothing").is_err());
    }
}
