//! [`Disk`], the interface of a disk, and [`Device`], a disk that refuses every operation after a failed write or sync.

mod file;

pub use file::FileDisk;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Use of the page cache by one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache; used for labels and journal. After a failed sync, also one of an earlier process of the same
    /// boot, a read may return bytes that are not on the disk and that no sync writes.
    Cached,
    /// Without the page cache (O_DIRECT); used for extents. Offset, length and memory address must be multiples of 4
    /// KiB.
    Direct,
}

/// A raw region of stable storage.
///
/// After `write_at` returns, `read_at` returns the bytes and they survive the end of the process.
/// After a following `sync` returns, they survive loss of power. If power is lost before that, any subset of the
/// 512-byte sectors written may survive, whatever the order of the writes.
pub trait Disk: Send + Sync {
    /// Length in bytes; constant while the disk is open.
    fn size(&self) -> u64;
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The disk refused the read, or `offset` is not aligned for `access`.
    fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`, the first one at `offset`.
    ///
    /// # Errors
    /// The disk refused the write, or `offset` is not aligned for `access`. Part of the bytes may be written.
    fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes every write that returned before this call durable.
    ///
    /// # Errors
    /// The disk refused the sync: it is unknown which of the writes are durable.
    fn sync(&self) -> io::Result<()>;
    /// Checks that the disk can be used. Called before its index is committed.
    ///
    /// The default returns `Ok`: on a real disk the commit itself fails. A simulated disk needs the check, because its
    /// index lies on a file system that loses no power.
    ///
    /// # Errors
    /// The disk is missing or without power.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk that [`crate::Pool::format`] or [`crate::Pool::open`] gets.
pub struct PoolDisk {
    /// Name that error texts show, such as the path of the device.
    pub name: String,
    pub device: Box<dyn Disk>,
    /// Directory of the disk's LMDB index, on a file system of the same disk.
    pub index: PathBuf,
}

/// An I/O error of a disk, with the name of the disk.
#[derive(Debug)]
pub(crate) struct DiskError {
    pub disk: String,
    pub source: io::Error,
}

/// A disk with its name. Syncs run one at a time, and after a failed write or sync every operation fails.
///
/// Linux reports a write-back error to one `fdatasync` per descriptor; a second `fdatasync` may then succeed although
/// data was lost. So only one sync runs at a time, and no sync runs after a failed one.
pub(crate) struct Device {
    pub name: String,
    disk: Box<dyn Disk>,
    sync_lock: Mutex<()>,
    failed: AtomicBool,
}

impl Device {
    pub fn new(name: String, disk: Box<dyn Disk>) -> Self {
        Self { name, disk, sync_lock: Mutex::new(()), failed: AtomicBool::new(false) }
    }

    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Fills `buffer` from `offset`. A failed read does not mark the disk failed: the caller repairs a bad sector from
    /// the peer.
    pub fn read(&self, access: Access, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.usable()?;
        self.disk.read_at(access, offset, buffer).map_err(|e| self.error(e))
    }

    pub fn write(&self, access: Access, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.usable()?;
        self.disk.write_at(access, offset, bytes).map_err(|e| self.fail(e))
    }

    pub fn sync(&self) -> Result<(), DiskError> {
        let _one_sync = self.sync_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.usable()?;
        self.disk.sync().map_err(|e| self.fail(e))
    }

    pub fn check(&self) -> Result<(), DiskError> {
        self.usable()?;
        self.disk.check().map_err(|e| self.fail(e))
    }

    /// Marks the disk failed, which lasts until the pool is opened again, and returns the error with the disk's name.
    pub fn fail(&self, source: io::Error) -> DiskError {
        self.failed.store(true, Ordering::Release);
        self.error(source)
    }

    fn usable(&self) -> Result<(), DiskError> {
        if self.failed() {
            return Err(self.error(io::Error::other("the disk failed before")));
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> DiskError {
        DiskError { disk: self.name.clone(), source }
    }
}
