//! Guest memory: maps the memory that QEMU shares, and translates addresses of QEMU.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::vhost_user::dirty_log::{DirtyLog, RegionLog};
use crate::vhost_user::shared_memory::{MapError, check_sealed};

/// The memory of a guest; writes to it are recorded in the dirty log.
pub(crate) type GuestMemory = GuestMemoryMmap<RegionLog>;

/// The guest's memory, and the place of each region in QEMU's address space
/// (vhost-user, "Memory regions description").
pub(crate) struct MemoryTable {
    /// All regions, by guest physical address.
    pub guest: Arc<GuestMemory>,
    /// Per region: address in QEMU, guest physical address, length in bytes.
    regions: Vec<(u64, u64, u64)>,
}

impl MemoryTable {
    /// Maps all regions of one `VHOST_USER_SET_MEM_TABLE` message.
    pub fn map(regions: &[VhostUserMemoryRegion], files: Vec<File>, log: &Arc<DirtyLog>) -> Result<Self, MapError> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut translated = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let (user, guest, len) = (region.user_addr, region.guest_phys_addr, region.memory_size);
            check_sealed(&file, region.mmap_offset..region.mmap_offset.saturating_add(len))?;
            let size = usize::try_from(len).map_err(|_| MapError::TooLarge)?;
            let bitmap = RegionLog::new(guest, log.clone());
            let mapping = vm_memory::mmap::MmapRegionBuilder::new_with_bitmap(size, bitmap)
                .with_file_offset(FileOffset::new(file, region.mmap_offset))
                .with_mmap_prot(PROT_READ_WRITE)
                .with_mmap_flags(MAP_SHARED_NORESERVE)
                .build()?;
            mapped.push(GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or(MapError::Layout)?);
            translated.push((user, guest, len));
        }
        mapped.sort_by_key(vm_memory::GuestMemoryRegion::start_addr);
        let guest = GuestMemory::from_regions(mapped).map_err(|_| MapError::Layout)?;
        Ok(Self { guest: Arc::new(guest), regions: translated })
    }

    /// The guest physical address for an address in QEMU; QEMU gives the addresses of rings in this form. `None` if no
    /// region contains it.
    pub fn guest_address(&self, user: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|(start, guest, len)| {
            let offset = user.checked_sub(*start)?;
            (offset < *len).then(|| GuestAddress(guest + offset))
        })
    }
}

// vm-memory takes the numbers of the C library.
const PROT_READ_WRITE: i32 = (rustix::mm::ProtFlags::READ.bits() | rustix::mm::ProtFlags::WRITE.bits()) as i32;
const MAP_SHARED_NORESERVE: i32 = (rustix::mm::MapFlags::SHARED.bits() | rustix::mm::MapFlags::NORESERVE.bits()) as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::shared_memory::tests::sealed_memfd;

    #[test]
    fn addresses_of_qemu_are_translated_inside_regions_only() {
        let regions = [
            VhostUserMemoryRegion::new(0x10_0000, 0x2000, 0x7000_0000, 0),
            VhostUserMemoryRegion::new(0, 0x1000, 0x5000_0000, 0),
        ];
        let files = vec![sealed_memfd(0x2000), sealed_memfd(0x1000)];
        let table = MemoryTable::map(&regions, files, &Arc::default()).unwrap();
        assert_eq!(table.guest_address(0x7000_1fff), Some(GuestAddress(0x10_1fff)));
        assert_eq!(table.guest_address(0x5000_0000), Some(GuestAddress(0)));
        assert_eq!(table.guest_address(0x7000_2000), None);
        assert_eq!(table.guest_address(0x4fff_ffff), None);
    }

    #[test]
    fn memory_that_could_shrink_is_refused() {
        let region = [VhostUserMemoryRegion::new(0, 0x1000, 0, 0)];
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1000).unwrap();
        let refused = MemoryTable::map(&region, vec![file], &Arc::default());
        assert!(matches!(refused.err(), Some(MapError::NotSealed)));
    }

    #[test]
    fn regions_that_overlap_or_exceed_their_file_are_refused() {
        let region = VhostUserMemoryRegion::new(0, 0x2000, 0, 0);
        let short = MemoryTable::map(&[region], vec![sealed_memfd(0x1000)], &Arc::default());
        assert!(matches!(short.err(), Some(MapError::TooShort)));
        let twice = MemoryTable::map(
            &[region, VhostUserMemoryRegion::new(0x1000, 0x1000, 0, 0)],
            vec![sealed_memfd(0x2000), sealed_memfd(0x2000)],
            &Arc::default(),
        );
        assert!(matches!(twice.err(), Some(MapError::Layout)));
    }
}
