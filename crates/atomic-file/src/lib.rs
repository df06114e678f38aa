//! Replaces small files as a whole: after a loss of power a file holds its old or its new content.
//!
//! [`replace`] writes the content into a temporary file in the same folder, syncs that file, renames it over the target
//! and syncs the folder. The temporary file of `identity.json` is `identity.json.new`. If a writer is killed, the
//! temporary file may stay; the next `replace` of the same file overwrites it.
//!
//! This crate must never know what the content of a file means.
//!
//! **Invariants**
//! * A reader sees the whole old or the whole new content at every moment, also after a loss of power between two
//!   steps.
//! * A loss of power does not undo a change whose function has returned `Ok`.
//! * Two writers of one file, in one process or in two, replace it one after the other.

mod file_system;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use file_system::{FileSystem, KernelFileSystem};

/// Permission bits of a file that only its owner may read, because it may hold keys.
pub const PRIVATE: u32 = 0o600;
/// Permission bits of a file that every user may read.
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
/// The folder is missing or cannot be written, or the disk is full or broken. The error does not name the file; the
/// caller does. The old file is then unchanged, and the temporary file is removed if possible. One case differs: if the
/// sync of the folder fails, the new content is in place, and a loss of power may bring the old content back.
pub fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_on(&mut KernelFileSystem, path, bytes, mode)
}

/// Gives the file `from` the name `to`, replacing a file of that name. Both paths must be on one file system.
///
/// # Errors
/// The file `from` does not exist, or a folder cannot be written. The error does not name the files; the caller does.
/// If the sync of a folder fails, the file has its new name, and a loss of power may bring the old name back.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    KernelFileSystem.rename(from, to)?;
    KernelFileSystem.sync_folder(folder(to))?;
    if folder(from) == folder(to) { Ok(()) } else { KernelFileSystem.sync_folder(folder(from)) }
}

/// Removes the file at `path`. It is no error if the file does not exist.
///
/// # Errors
/// The folder is missing or cannot be written. The error does not name the file; the caller does. If the sync of the
/// folder fails, the file is removed, and a loss of power may bring it back.
pub fn remove(path: &Path) -> io::Result<()> {
    match KernelFileSystem.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    KernelFileSystem.sync_folder(folder(path))
}

fn replace_on<D: FileSystem>(file_system: &mut D, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    // The lock on the file ends when it is closed: after the rename, or after the temporary file is removed.
    let mut file = file_system.create_locked(&temporary, mode)?;
    let written = file_system
        .write(&mut file, bytes)
        .and_then(|()| file_system.sync_file(&file))
        .and_then(|()| file_system.rename(&temporary, path));
    if let Err(error) = written {
        // An error of this removal is ignored: the first error is the cause.
        let _ = file_system.remove(&temporary);
        return Err(error);
    }
    file_system.sync_folder(folder(path))
}

/// The path of the temporary file for `path`, in the same folder.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut name = OsString::from(name);
    name.push(".new");
    Ok(path.with_file_name(name))
}

/// The folder that contains `path`.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}
