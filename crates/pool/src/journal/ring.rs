//! The ring on the first disk that holds the records.

use crate::disk::{Access, Device, Fault};
use crate::layout::MARGIN;
use dyad_types::BLOCK;
use std::sync::Arc;

/// Limit of the bytes written and not synced; an append beyond it syncs first.
///
/// It limits the distance from a damaged record to the record that proves its durability, and so the bytes that each
/// open reads: see [`super::scan`]. Guests wait for that read after a restart of the daemon.
pub(crate) const UNSYNCED_MAX: u64 = 16 << 20;

/// A boundary between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Logical position of the next record.
    pub position: u64,
    /// Number of the last record before it.
    pub record: u64,
}

/// Reads pages of the ring. Cheap to clone, so that jobs have their own.
#[derive(Clone)]
pub(crate) struct Ring {
    pub device: Arc<Device>,
    pub len: u64,
}

impl Ring {
    pub(super) fn offset(&self, position: u64) -> u64 {
        MARGIN + position % self.len
    }

    /// Reads from a logical position; the range must not cross the ring's end.
    pub fn read(&self, position: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        debug_assert!(position % self.len + buffer.len() as u64 <= self.len);
        self.device.read(Access::Cached, self.offset(position), buffer)
    }

    /// Reads whole pages by page number within the ring.
    pub fn read_pages(&self, page: u32, buffer: &mut [u8]) -> Result<(), Fault> {
        self.read(u64::from(page) * BLOCK as u64, buffer)
    }

    /// Page number within the ring of a logical position.
    pub fn page(&self, position: u64) -> u32 {
        u32::try_from(position % self.len / BLOCK as u64).expect("a ring has at most 8 GiB")
    }
}
