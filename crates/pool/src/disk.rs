//! The interface of a disk, and [`Device`], which refuses every operation after a failed write or sync.

mod file;

pub use file::FileDisk;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether I/O uses the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache: labels and journal.
    Cached,
    /// Without the page cache: extents. Offset, length and memory address are multiples of 4 KiB.
    Direct,
}

/// A raw region of stable storage.
///
/// After `write_at` returns, `read_at` returns the bytes and they survive the end of the process.
/// After a following `sync` returns, they survive loss of power. Before that any subset of the
/// 512-byte sectors written may survive, in any order.
pub trait Disk: Send + Sync {
    /// Length in bytes; constant while the disk is open.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The disk refused the read, or `offset` is not aligned for `access`.
    fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// The disk refused the write, or `offset` is not aligned for `access`. Part of the bytes may be written.
    fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes every write that returned before this call durable.
    ///
    /// # Errors
    /// The disk refused the sync: it is unknown which of the writes are durable.
    fn sync(&self) -> io::Result<()>;
    /// Checks that the disk is present. Called before an index is committed.
    ///
    /// # Errors
    /// The disk is missing.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk to format or open.
pub struct PoolDisk {
    /// Name for people; used in error texts.
    pub name: String,
    pub device: Box<dyn Disk>,
    /// Directory of the disk's LMDB index, on a file system of the same disk.
    pub index: PathBuf,
}

/// An I/O error with the name of the disk.
#[derive(Debug)]
pub(crate) struct Fault {
    pub disk: String,
    pub source: io::Error,
}

/// A disk with its name. Syncs run one at a time, and after a failed write or sync every operation fails.
///
/// Linux reports a write-back error to one `fdatasync` per descriptor; a second one may then
/// succeed although data was lost. So only one sync runs at a time, and after a failure no other follows.
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

    /// A failed read does not fail the disk: a bad sector is repaired from the peer.
    pub fn read(&self, access: Access, offset: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.usable()?;
        self.disk.read_at(access, offset, buffer).map_err(|e| self.fault(e))
    }

    pub fn write(&self, access: Access, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.usable()?;
        self.disk.write_at(access, offset, bytes).map_err(|e| self.fail(e))
    }

    pub fn sync(&self) -> Result<(), Fault> {
        let _one_sync = self.sync_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.usable()?;
        self.disk.sync().map_err(|e| self.fail(e))
    }

    pub fn check(&self) -> Result<(), Fault> {
        self.usable()?;
        self.disk.check().map_err(|e| self.fail(e))
    }

    /// Marks the disk failed until the pool is opened again.
    pub fn fail(&self, source: io::Error) -> Fault {
        self.failed.store(true, Ordering::Release);
        self.fault(source)
    }

    fn usable(&self) -> Result<(), Fault> {
        if self.failed() {
            return Err(self.fault(io::Error::other("the disk failed before")));
        }
        Ok(())
    }

    fn fault(&self, source: io::Error) -> Fault {
        Fault { disk: self.name.clone(), source }
    }
}
