//! The steps on the disk, so that a test can lose power between two of them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What this crate asks of a file system.
pub(crate) trait Disk {
    /// An open file.
    type File;

    /// Opens an empty file at `path` that no other writer has open.
    fn create_locked(&mut self, path: &Path, mode: u32) -> io::Result<Self::File>;
    /// Appends `bytes` to the file; they need not be durable before [`Self::sync_file`].
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Returns when content and permission bits are durable.
    fn sync_file(&mut self, file: &Self::File) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Unlinks the file at `path`; durable after [`Self::sync_folder`].
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Returns when the names in the folder are durable.
    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;
}

/// The kernel's file systems.
pub(crate) struct Os;

impl Disk for Os {
    type File = File;

    fn create_locked(&mut self, path: &Path, mode: u32) -> io::Result<File> {
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)?;
            // Waits until another writer of the same file has finished.
            file.lock()?;
            // That writer has then renamed or removed the file that was opened here.
            let (opened, named) = (file.metadata()?, fs::metadata(path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
                // A killed writer may have left content, and the process's umask may have taken bits away.
                file.set_permissions(Permissions::from_mode(mode))?;
                file.set_len(0)?;
                return Ok(file);
            }
        }
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&mut self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}
