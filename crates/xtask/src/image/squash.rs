//! Builds the compressed read-only file systems (squashfs) of the image.

use super::debian::{DebianTree, hex};
use super::options::{FILE_TIME, Options, ZSTD_LEVEL_BEST};
use super::{kernel, tree};
use crate::host::{self, Host};
use anyhow::Result;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of the code that builds the tree. Raise it when that code changes: cached trees of another version are not
/// used.
const TREE_VERSION: u32 = 2;

/// Path of `system.squashfs`, the system without this workspace's programs. It is built only if the cache has none for
/// the same inputs.
pub fn system(host: &Host, debian: &DebianTree, options: &Options) -> Result<PathBuf> {
    let key = cache_key(host, debian)?;
    let cache = host.cache()?;
    let at_level = |level: u32| cache.join(format!("system-{}-{level}.squashfs", &key[..16]));
    let finished = at_level(options.zstd_level());
    // A fast build also uses a cached file of the best level.
    let usable = if options.fast { vec![at_level(ZSTD_LEVEL_BEST), finished.clone()] } else { vec![finished.clone()] };
    if let Some(cached) = usable.into_iter().find(|path| path.exists()) {
        return Ok(cached);
    }
    let folder = host.target().join("image/tree");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    tree::build(host, debian, &folder)?;
    kernel::install(host, debian, &folder)?;
    let fresh = squash(&folder, &finished.with_extension("part"), options.zstd_level())?;
    fs::rename(fresh, &finished)?;
    Ok(finished)
}

/// Compresses `folder` into the squashfs file `target` with zstd at `level`.
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
    // mksquashfs refuses these options if the variable of the same meaning is set.
    command.args(["-mkfs-time", &time, "-all-time", &time]).env_remove("SOURCE_DATE_EPOCH");
    host::run_quietly(&mut command)?;
    Ok(target.into())
}

/// Hash over the inputs of the tree: [`TREE_VERSION`], the packages, and the files of `image/` and `initramfs/`.
fn cache_key(host: &Host, debian: &DebianTree) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{TREE_VERSION} {:?}", debian.packages()?));
    let repository = host.repository();
    for folder in ["image", "initramfs"] {
        for file in tree::all_files(&repository.join(folder))? {
            hash.update(&file);
            hash.update(fs::read(repository.join(folder).join(&file))?);
        }
    }
    Ok(hex(&hash.finalize()))
}
