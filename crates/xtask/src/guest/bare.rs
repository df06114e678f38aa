//! Builds the disk of the counting guest without an operating system: one file that begins with the boot sector.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::host::{self, Host};

/// Sections that the boot sector loads, in their order on the disk.
const LOADED_SECTIONS: [&str; 4] = [".boot", ".text", ".rodata", ".data"];

/// Builds the disk in the folder `work`.
///
/// A library is compiled and linked here, because cargo would link a program with the start of the host's C library. The
/// host's target serves: the guest enables the registers that it uses, and no further target needs to be installed.
pub fn build(host: &Host, work: &Path) -> Result<PathBuf> {
    let mut compile = host.cargo();
    compile.args(["rustc", "--release", "--package", "dyad-bare-counter", "--features", "boot", "--lib"]);
    compile.args(["--crate-type", "staticlib", "--", "-C", "panic=abort", "-C", "relocation-model=static"]);
    host::run(&mut compile)?;
    let library = host.artifacts().programs().join("libdyad_bare_counter.a");
    let program = work.join("bare.elf");
    let mut link = Command::new("ld");
    link.args(["-n", "-static", "--gc-sections", "--no-warn-rwx-segments", "-T"]);
    host::run(link.arg(host.repository().join("crates/bare-counter/guest.ld")).arg("-o").arg(&program).arg(library))?;
    let disk = work.join("bare.img");
    let mut copy = Command::new("objcopy");
    copy.args(["--output-target", "binary"]);
    copy.args(LOADED_SECTIONS.iter().flat_map(|section| ["--only-section", section]));
    host::run(copy.arg(&program).arg(&disk))?;
    let file = fs::File::options().write(true).open(&disk).context("objcopy has made no disk.")?;
    file.set_len(dyad_counter::DISK_BYTES)?;
    Ok(disk)
}
