//! [`FileDisk`]: a partition or a regular file, opened twice, with and without the page cache.

use super::{Access, Disk};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A block device or a regular file. Locked with `flock` while open, so that a second open fails.
pub struct FileDisk {
    cached: File,
    /// The same file with O_DIRECT; `None` if the file system does not support it, as an old tmpfs in tests.
    direct: Option<File>,
    size: u64,
}

impl FileDisk {
    /// Opens an existing device or file for reading and writing.
    ///
    /// # Errors
    /// The file cannot be opened, or another process has locked it (`WouldBlock`). The caller names the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut cached = OpenOptions::new().read(true).write(true).open(path)?;
        flock(&cached, FlockOperation::NonBlockingLockExclusive)?;
        let size = cached.seek(SeekFrom::End(0))?;
        let flag = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let direct = match OpenOptions::new().read(true).write(true).custom_flags(flag).open(path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => None,
            Err(e) => return Err(e),
        };
        Ok(Self { cached, direct, size })
    }

    /// Creates a sparse file of `size` bytes and opens it.
    ///
    /// # Errors
    /// The file exists or cannot be created. The caller names the file.
    pub fn create(path: &Path, size: u64) -> io::Result<Self> {
        OpenOptions::new().write(true).create_new(true).open(path)?.set_len(size)?;
        Self::open(path)
    }

    /// Whether O_DIRECT is in use; if not, [`Access::Direct`] goes through the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    fn file(&self, access: Access) -> &File {
        match (access, &self.direct) {
            (Access::Direct, Some(file)) => file,
            _ => &self.cached,
        }
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file(access).read_exact_at(buffer, offset)
    }

    fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(access).write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.cached.sync_data()
    }
}
