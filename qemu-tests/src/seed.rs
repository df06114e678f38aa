//! A seed volume: a small FAT disk with the answers of the wizard (`docs/seed.md`).

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Administrator's password of every pair that the rig sets up.
pub const PASSWORD: &str = "correct horse battery";
/// Bytes of the disk: more than FAT needs at least; the answers take less than 1 KiB.
const SIZE: u64 = 4 << 20;

/// Answers that make a node of the rig the first node of a pair without a witness. Optional answers are left out.
pub fn first_node_answers() -> String {
    format!(
        "role = \"first\"\n\
         disks = [\"/dev/vdb\", \"/dev/nvme0n1\"]\n\
         erase = \"erase vdb nvme0n1\"\n\
         pair = \"rig\"\n\
         password = \"{PASSWORD}\"\n\
         witness = \"later\"\n"
    )
}

/// Creates the file `disk`: a FAT file system labelled `DYAD-SEED` with these answers as `dyad-seed.toml`.
///
/// # Errors
/// `mkfs.fat` or `mcopy` is missing or fails.
pub fn make_volume(disk: &Path, answers: &str) -> Result<()> {
    File::create(disk)?.set_len(SIZE)?;
    // mkfs.fat lies in /usr/sbin, which a user's PATH may lack.
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    run(Command::new("mkfs.fat").env("PATH", path).args(["-n", "DYAD-SEED"]).arg(disk))?;
    let file = disk.with_file_name("dyad-seed.toml");
    fs::write(&file, answers)?;
    run(Command::new("mcopy").arg("-i").arg(disk).arg(&file).arg("::"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
