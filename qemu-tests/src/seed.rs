//! A seed volume: a small FAT disk that answers the wizard in place of a person.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The administrator's password of every pair on the rig.
pub const PASSWORD: &str = "correct horse battery";
/// Bytes of the disk: the answers take a few KiB, FAT has a minimum size.
const SIZE: u64 = 4 << 20;

/// The answers that make a node of the rig the first one of a pair without a witness. Optional answers are left out.
pub fn first_node() -> String {
    format!(
        "role = \"first\"\n\
         disks = [\"/dev/vdb\", \"/dev/nvme0n1\"]\n\
         erase = \"erase vdb nvme0n1\"\n\
         pair = \"rig\"\n\
         password = \"{PASSWORD}\"\n\
         witness = \"later\"\n"
    )
}

/// Makes the volume `disk` with these answers.
///
/// # Errors
/// The tools are missing or fail.
pub fn make(disk: &Path, answers: &str) -> Result<()> {
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
