//! The region of the first disk that holds the journal's records, and boundaries between records.

use crate::disk::{Access, Device, DiskError};
use crate::layout::MARGIN;
use dyad_types::BLOCK;
use std::ops::Range;
use std::sync::Arc;

/// An append that finds more than this many bytes written and not synced syncs first.
///
/// This limits the distance from a damaged record to the record that proves its durability, and so the number of bytes
/// that each open reads (see [`super::scan`]). Guests wait for that read after a restart of the daemon.
pub(crate) const UNSYNCED_MAX: u64 = 16 << 20;

/// A boundary between two records of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordBoundary {
    /// Logical position of the record after the boundary.
    pub position: u64,
    /// Number of the record before the boundary.
    pub record: u64,
}

/// The journal's region: `len` bytes of the first disk, from 1 MiB on. Cheap to clone, so that each job has its own.
#[derive(Clone)]
pub(crate) struct Ring {
    pub device: Arc<Device>,
    pub len: u64,
}

impl Ring {
    /// Byte offset on the disk of a logical position.
    pub(super) fn offset(&self, position: u64) -> u64 {
        MARGIN + position % self.len
    }

    /// Fills `buffer` from a logical position on; the range must not cross the end of the ring.
    pub fn read(&self, position: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        debug_assert!(position % self.len + buffer.len() as u64 <= self.len);
        self.device.read(Access::Cached, self.offset(position), buffer)
    }

    /// Writes the bytes of a range of logical positions again, with their present content, so that the next sync covers them.
    pub fn rewrite(&self, range: Range<u64>) -> Result<(), DiskError> {
        let mut chunk = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            let len = (chunk.len() as u64).min(self.len - at % self.len).min(range.end - at);
            let bytes = &mut chunk[..len as usize];
            self.read(at, bytes)?;
            self.device.write(Access::Cached, self.offset(at), bytes)?;
            at += len;
        }
        Ok(())
    }

    /// Fills `buffer` with whole pages, the first one with the number `page` within the ring.
    pub fn read_pages(&self, page: u32, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.read(u64::from(page) * BLOCK as u64, buffer)
    }

    /// Page number within the ring of a logical position.
    pub fn page(&self, position: u64) -> u32 {
        u32::try_from(position % self.len / BLOCK as u64).expect("a ring has at most 8 GiB")
    }
}
