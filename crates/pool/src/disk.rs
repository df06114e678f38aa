//! What the store needs of a disk, and the guard that never trusts a disk again after a failed write.

mod file;

pub use file::FileDisk;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache: labels and journal.
    Cached,
    /// Past the page cache: extents. Offset, length and memory are multiples of 4 KiB.
    Direct,
}

/// A raw region of stable storage.
///
/// After `write_at` returns, `read_at` sees the bytes and they survive the death of the process.
/// After a following `sync` returns, they survive loss of power. Before that any subset of the
/// 512-byte sectors written may survive, in any order.
pub trait Disk: Send + Sync {
    /// Length in bytes; does not change while open.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`.
    fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset`.
    fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written before this call durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether the disk is still there; asked right before an index is committed.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk's refusal, with the disk's name.
#[derive(Debug)]
pub(crate) struct Fault {
    pub disk: String,
    pub source: io::Error,
}

/// A disk with its name, serialised syncs and a memory of failure.
///
/// Linux reports a write-back error to one `fdatasync` per descriptor; a second one may then
/// succeed. Syncs therefore take turns, and after one failure none is asked again.
pub(crate) struct Device {
    pub name: String,
    disk: Box<dyn Disk>,
    turn: Mutex<()>,
    failed: AtomicBool,
}

impl Device {
    pub fn new(name: String, disk: Box<dyn Disk>) -> Self {
        Self { name, disk, turn: Mutex::new(()), failed: AtomicBool::new(false) }
    }

    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A failed read does not fail the disk: one bad sector is healed from the peer.
    pub fn read(&self, access: Access, offset: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.usable()?;
        self.disk.read_at(access, offset, buffer).map_err(|e| self.fault(e))
    }

    pub fn write(&self, access: Access, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.usable()?;
        self.disk.write_at(access, offset, bytes).map_err(|e| self.fail(e))
    }

    pub fn sync(&self) -> Result<(), Fault> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.usable()?;
        self.disk.sync().map_err(|e| self.fail(e))
    }

    pub fn check(&self) -> Result<(), Fault> {
        self.usable()?;
        self.disk.check().map_err(|e| self.fail(e))
    }

    /// Marks the disk failed for good.
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
