//! The dirty page log of a live migration (vhost-user, "Migration").
//!
//! QEMU shares a bitmap, one bit per page of guest memory. While `VHOST_F_LOG_ALL` is set, the device sets the bit of
//! each page that it writes, those of the used ring included. vm-memory calls [`RegionLog`] for each write through its
//! accessors, and this crate writes guest memory in no other way.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vhost::vhost_user::message::VhostUserLog;
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::vhost_user::shared_memory::{MapError, check_sealed};

/// Bytes of guest memory per bit of the log (vhost-user, "Migration": `VHOST_LOG_PAGE`).
const LOG_PAGE: u64 = 0x1000;

/// The log of one device, which all its memory regions share.
#[derive(Debug, Default)]
pub(crate) struct DirtyLog {
    enabled: AtomicBool,
    /// The bitmap that QEMU shares; `None` until QEMU has sent it.
    bits: RwLock<Option<MmapRegion>>,
}

impl DirtyLog {
    /// Switches logging on or off, as `VHOST_F_LOG_ALL` in the negotiated features says.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Maps the bitmap that `message` describes in `file`, and uses it from now on (`VHOST_USER_SET_LOG_BASE`).
    pub fn set_base(&self, message: &VhostUserLog, file: File) -> Result<(), MapError> {
        check_sealed(&file, message.mmap_offset..message.mmap_offset.saturating_add(message.mmap_size))?;
        let size = usize::try_from(message.mmap_size).map_err(|_| MapError::TooLarge)?;
        let region = MmapRegion::from_file(FileOffset::new(file, message.mmap_offset), size)?;
        *self.bits.write().unwrap_or_else(PoisonError::into_inner) = Some(region);
        Ok(())
    }

    /// Stops logging and unmaps the bitmap.
    pub fn clear(&self) {
        self.enable(false);
        *self.bits.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sets the bits of all pages that a range of guest physical addresses touches.
    fn mark(&self, bytes: Range<u64>) {
        if bytes.is_empty() || !self.enabled.load(Ordering::Relaxed) {
            return;
        }
        let bits = self.bits.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bits) = bits.as_ref() else { return };
        for page in bytes.start / LOG_PAGE..=(bytes.end - 1) / LOG_PAGE {
            // QEMU does not track pages beyond the bitmap.
            let Ok(at) = usize::try_from(page / 8) else { return };
            let Ok(byte) = bits.get_atomic_ref::<AtomicU8>(at) else { return };
            byte.fetch_or(1 << (page % 8), Ordering::Relaxed);
        }
    }
}

/// The log with the offset of one memory region.
#[derive(Debug, Clone, Default)]
pub(crate) struct RegionLog {
    /// Guest physical address of the region's first byte.
    base: u64,
    /// `None` in a region that vm-memory makes without a log.
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

    /// Always false: only QEMU reads the log.
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
    fn each_page_that_is_written_gets_its_bit_and_no_other_does() {
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
