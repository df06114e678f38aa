//! Builds the disks of the counting guests. They are all bootable by a BIOS and have room for the ring of counters.

mod bare;
mod linux;

use std::fs;

use anyhow::{Context as _, Result};
use dyad_rig::artifacts::CountingGuest;

use crate::host::{self, Host};

/// Builds `target/rig/bare-counter.img` and `target/rig/linux-counter.img`.
pub fn build(host: &Host) -> Result<()> {
    host::step("Building the counting guests");
    let work = host.target().join("guest");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let disks = [(CountingGuest::Bare, bare::build(host, &work)?), (CountingGuest::Linux, linux::build(host, &work)?)];
    for (guest, disk) in disks {
        let finished = host.artifacts().guest(guest);
        fs::create_dir_all(finished.parent().context("The guest's disk has no folder.")?)?;
        fs::rename(&disk, &finished)?;
        println!("    {}: {} MiB", finished.display(), fs::metadata(&finished)?.len() >> 20);
    }
    Ok(())
}
