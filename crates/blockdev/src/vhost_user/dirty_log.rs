//! The dirty page log of a live migration (vhost-user, "Migration").
//!
//! QEMU shares a bitmap, one bit per page of guest memory. While `VHOST_F_LOG_ALL` is set, every page we
//! write, the used ring included, gets its bit. vm-memory calls [`RegionLog`] for each write that goes
//! through its accessors, and we have no other way to write guest memory.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vhost::vhost_user::message::VhostUserLog;
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::vhost_user::shared_memory::{MapError, check_sealed};

/// Size of the pages the log counts, in bytes (vhost-user, "Migration": `VHOST_LOG_PAGE`).
const LOG_PAGE: u64 = 0x1000;

/// The log of one device. Shared by all its memory regions.
#[derive(Debug, Default)]
pub(crate) struct DirtyLog {
    enabled: AtomicBool,
    bits: RwLock<Option<MmapRegion>>,
}

impl DirtyLog {
    /// Follow `VHOST_F_LOG_ALL` of the negotiated features.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Use the bitmap that `message` describes in `file` from now on (`VHOST_USER_SET_LOG_BASE`).
    pub fn set_base(&self, message: &VhostUserLog, file: File) -> Result<(), MapError> {
        check_sealed(&file, message.mmap_offset..message.mmap_offset.saturating_add(message.mmap_size))?;
        let size = usize::try_from(message.mmap_size).map_err(|_| MapError::TooLarge)?;
        let region = MmapRegion::from_file(FileOffset::new(file, message.mmap_offset), size)?;
        *self.bits.write().unwrap_or_else(PoisonError::into_inner) = Some(region);
        Ok(())
    }

    /// Forget the bitmap and stop logging.
    pub fn clear(&self) {
        self.enable(false);
        *self.bits.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Marks the pages of a range of guest physical addresses.
    fn mark(&self, bytes: Range<u64>) {
        if bytes.is_empty() || !self.enabled.load(Ordering::Relaxed) {
            return;
        }
        let bits = self.bits.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bits) = bits.as_ref() else { return };
        for page in bytes.start / LOG_PAGE..=(bytes.end - 1) / LOG_PAGE {
            // QEMU did not ask about pages beyond the bitmap.
            let Ok(at) = usize::try_from(page / 8) else { return };
            let Ok(byte) = bits.get_atomic_ref::<AtomicU8>(at) else { return };
            byte.fetch_or(1 << (page % 8), Ordering::Relaxed);
        }
    }
}

/// The log as one memory region sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RegionLog {
    /// Guest physical address of offset 0.
    base: u64,
    log: Option<Arc<DirtyLog>>,
}

impl RegionLog {
    /// For a region that starts at guest physical address `base`.
    pub fn new(base: u64, log: Arc<DirtyLog>) -> Self {
        Self { base, log: Some(log) }
    }
}

impl WithBitmapSlice<'_> for RegionLog {
    type S = Self;
}

impl BitmapSlice for RegionLog {}

impl Bitmap for RegionLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(log) = &self.log {
            let start = self.base.saturating_add(offset as u64);
            log.mark(start..start.saturating_add(len as u64));
        }
    }

    /// Used only by vm-memory's own tests: QEMU reads the log.
    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { base: self.base.saturating_add(offset as u64), log: self.log.clone() }
    }
}

impl NewBitmap for RegionLog {
    fn with_len(_len: usize) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::shared_memory::tests::sealed_memfd;
    use vm_memory::Bytes;

    fn byte(log: &DirtyLog, at: usize) -> u8 {
        let bits = log.bits.read().unwrap();
        bits.as_ref().unwrap().as_volatile_slice().read_obj(at).unwrap()
    }

    #[test]
    fn every_touched_page_gets_its_bit_and_no_other() {
        let log = Arc::new(DirtyLog::default());
        log.set_base(&VhostUserLog::new(4096, 0), sealed_memfd(4096)).unwrap();
        let region = RegionLog::new(0x10_0000, log.clone());
        region.mark_dirty(0, 4096);
        assert_eq!(byte(&log, 32), 0, "logging is off");
        log.enable(true);
        region.slice_at(0x1000).mark_dirty(0xfff, 2);
        assert_eq!(byte(&log, 32), 0b110);
        assert_eq!(byte(&log, 31) | byte(&log, 33), 0);
        region.mark_dirty(usize::MAX / 2, 8);
        log.clear();
        region.mark_dirty(0, 1);
    }
}
