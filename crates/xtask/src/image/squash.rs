//! Compressed read-only file systems.

use super::debian::{Debian, hex};
use super::options::{BEST, FILE_TIME, Options};
use super::{kernel, tree};
use crate::host::{self, Host};
use anyhow::Result;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the tree's recipe: a change makes every cached tree invalid.
const RECIPE: u32 = 2;

/// The system without our programs: from the cache if nothing that enters has changed.
pub fn system(host: &Host, debian: &Debian, options: &Options) -> Result<PathBuf> {
    let key = key(host, debian)?;
    let cache = host.cache()?;
    let at_level = |level: u32| cache.join(format!("system-{}-{level}.squashfs", &key[..16]));
    let finished = at_level(options.level());
    // A tree that was compressed well serves a quick build too.
    let usable = if options.fast { vec![at_level(BEST), finished.clone()] } else { vec![finished.clone()] };
    if let Some(cached) = usable.into_iter().find(|path| path.exists()) {
        return Ok(cached);
    }
    let folder = host.target().join("image/tree");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    tree::build(host, debian, &folder)?;
    kernel::install(host, debian, &folder)?;
    let fresh = squash(&folder, &finished.with_extension("part"), options.level())?;
    fs::rename(fresh, &finished)?;
    Ok(finished)
}

/// Compresses `folder` into the file `target`.
pub fn squash(folder: &Path, target: &Path, level: u32) -> Result<PathBuf> {
    let mut command = Command::new("mksquashfs");
    command.arg(folder).arg(target).args([
        "-noappend",
        "-quiet",
        "-no-progress",
        "-all-root",
        "-no-xattrs",
        "-no-exports",
    ]);
    command.args(["-b", "256K", "-comp", "zstd", "-Xcompression-level", &level.to_string()]);
    let time = FILE_TIME.to_string();
    // mksquashfs refuses these options beside the variable of the same meaning.
    command.args(["-mkfs-time", &time, "-all-time", &time]).env_remove("SOURCE_DATE_EPOCH");
    host::run_quietly(&mut command)?;
    Ok(target.into())
}

/// A hash over everything that enters the system.
fn key(host: &Host, debian: &Debian) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{RECIPE} {:?}", debian.packages()?));
    let repository = host.repository();
    for folder in ["image", "initramfs"] {
        for file in tree::all_files(&repository.join(folder))? {
            hash.update(&file);
            hash.update(fs::read(repository.join(folder).join(&file))?);
        }
    }
    Ok(hex(&hash.finalize()))
}
