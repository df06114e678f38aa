//! Small files that are replaced as a whole: after a loss of power a file holds its old or its new content.
//!
//! [`replace`] writes the content into a temporary file in the same folder, syncs that file, renames it over the target
//! and syncs the folder. The temporary file of `identity.json` is `identity.json.new`. A writer that was killed may leave
//! it behind; the next `replace` of the same file takes it over.
//!
//! This crate must never know what the files mean.
//!
//! **Invariants**
//! * A reader sees the whole old or the whole new content at every moment, also after a loss of power between two steps.
//! * When a function returns `Ok`, a loss of power does not undo its change.
//! * Two writers of one file, in one process or in two, replace it one after the other.

mod disk;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use disk::{Disk, Os};

/// Permission bits of a file that only its owner reads, as it may hold keys.
pub const PRIVATE: u32 = 0o600;
/// Permission bits of a file that every user reads.
pub const PUBLIC: u32 = 0o644;

/// Replaces the file at `path` by `bytes`, readable by its owner only.
///
/// # Errors
/// As [`replace_with_mode`].
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(path, bytes, PRIVATE)
}

/// Replaces the file at `path` by `bytes`, with the permission bits `mode` whatever the process's umask is.
///
/// # Errors
/// The folder is missing or cannot be written, the disk is full or broken; the caller names the file. The old file is then unchanged and the
/// temporary file is removed. Only if the sync of the folder fails is the new content in place, and a loss of power may
/// bring the old content back.
pub fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_on(&mut Os, path, bytes, mode)
}

/// Gives the file `from` the name `to`, replacing a file of that name. Both names lie on one file system.
///
/// # Errors
/// There is no such file, or a folder cannot be written; the caller names the files. If the sync of a folder fails, the file has its new name, and a
/// loss of power may bring the old name back.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Os.rename(from, to)?;
    Os.sync_folder(folder(to))?;
    if folder(from) == folder(to) { Ok(()) } else { Os.sync_folder(folder(from)) }
}

/// Removes the file at `path`. A file that does not exist is no error.
///
/// # Errors
/// The folder is missing or cannot be written; the caller names the file. If the sync of the folder fails, the file is gone, and a loss of power may
/// bring it back.
pub fn remove(path: &Path) -> io::Result<()> {
    match Os.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Os.sync_folder(folder(path))
}

fn replace_on<D: Disk>(disk: &mut D, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    // The lock on the file ends when it is closed: after the rename, or after the temporary file is removed.
    let mut file = disk.create_locked(&temporary, mode)?;
    let written =
        disk.write(&mut file, bytes).and_then(|()| disk.sync_file(&file)).and_then(|()| disk.rename(&temporary, path));
    if let Err(error) = written {
        // The first error tells more than one about the temporary file.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.sync_folder(folder(path))
}

fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut name = OsString::from(name);
    name.push(".new");
    Ok(path.with_file_name(name))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}
