//! Operations of a file system behind a trait, so that a test can model a loss of power between two of them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The operations of a file system that this crate uses.
pub(crate) trait FileSystem {
    /// An open file, locked against other writers of this crate until it is dropped.
    type File;

    /// Opens the file at `path`, created or emptied, with the permission bits `mode`. Waits while another writer has it
    /// open.
    fn create_locked(&mut self, path: &Path, mode: u32) -> io::Result<Self::File>;
    /// Appends `bytes` to the file. They are durable only after [`Self::sync_file`].
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and permission bits of the file durable.
    fn sync_file(&mut self, file: &Self::File) -> io::Result<()>;
    /// Gives the file `from` the name `to`, replacing a file of that name; durable after [`Self::sync_folder`].
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Unlinks the file at `path`; durable after [`Self::sync_folder`].
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Makes all changes of names in the folder durable.
    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;
}

/// The file systems that the kernel has mounted.
pub(crate) struct KernelFileSystem;

impl FileSystem for KernelFileSystem {
    type File = File;

    fn create_locked(&mut self, path: &Path, mode: u32) -> io::Result<File> {
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)?;
            // Waits until another writer of the same file has finished.
            file.lock()?;
            // Another writer may have renamed or removed the file meanwhile: then `path` names another file, or none.
            let (opened, named) = (file.metadata()?, fs::metadata(path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
                // A killed writer may have left content, and the umask of this process may have cleared permission
                // bits.
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
