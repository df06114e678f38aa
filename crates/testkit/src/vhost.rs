//! The side of QEMU in vhost-user: the memory of a guest, and the setup of a device that may have been restarted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// Where the guest's memory lies in the address space that the front-end states.
const USER_ADDRESS: u64 = 0x7f00_0000_0000;

/// A file in memory of `bytes` bytes whose size cannot change, as QEMU makes them for a guest.
///
/// # Errors
/// The kernel has no memory for it.
pub fn memfd(bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

/// The memory of a guest. It outlives the device.
pub struct SharedMemory {
    /// The memory as the guest sees it, from address 0.
    pub guest: GuestMemoryMmap,
    file: File,
    bytes: u64,
    /// The device's record of requests under way. The front-end keeps it for the next device.
    inflight: Option<(VhostUserInflight, File)>,
}

/// The virtqueues of a device.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    pub count: u16,
    /// Descriptors of each queue.
    pub size: u16,
}

/// One virtqueue: addresses are those of the guest.
pub struct Ring<'a> {
    /// Number of the queue.
    pub index: usize,
    /// Number of descriptors.
    pub size: u16,
    /// Index of the available ring from which the device goes on.
    pub next_available: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Tells the device that there are requests.
    pub kick: &'a EventFd,
    /// Tells the driver that there are answers.
    pub call: &'a EventFd,
}

impl SharedMemory {
    /// Memory of `bytes` bytes, all zeros.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let file = memfd(bytes)?;
        let map = FileOffset::new(file.try_clone()?, 0);
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        let guest =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), size, Some(map))]).map_err(io::Error::other)?;
        Ok(Self { guest, file, bytes, inflight: None })
    }

    /// Agrees on those `features` that the device offers and on all of its protocol features, and gives it the memory
    /// and the record of requests under way, which the first device makes. The rings come next: [`start_ring`].
    ///
    /// # Errors
    /// The device ended the connection or refused a message.
    pub fn share(
        &mut self,
        front: &mut Frontend,
        features: u64,
        queues: Queues,
    ) -> Result<VhostUserProtocolFeatures, vhost::Error> {
        let offered = front.get_features()?;
        let protocol = front.get_protocol_features()?;
        front.set_protocol_features(protocol)?;
        front.set_owner()?;
        front.set_features(offered & (features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()))?;
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        if self.inflight.is_none() {
            self.inflight = Some(front.get_inflight_fd(&VhostUserInflight::new(0, 0, queues.count, queues.size))?);
        }
        if let Some((record, file)) = &self.inflight {
            front.set_inflight_fd(record, file.as_raw_fd())?;
        }
        front.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: self.bytes,
            userspace_addr: USER_ADDRESS,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }])?;
        Ok(protocol)
    }
}

/// Gives the device a ring and enables it.
///
/// # Errors
/// The device ended the connection or refused a message.
pub fn start_ring(front: &mut Frontend, ring: &Ring<'_>) -> Result<(), vhost::Error> {
    front.set_vring_num(ring.index, ring.size)?;
    front.set_vring_base(ring.index, ring.next_available)?;
    let addresses = VringConfigData {
        queue_max_size: ring.size,
        queue_size: ring.size,
        flags: 0,
        desc_table_addr: USER_ADDRESS + ring.descriptors,
        avail_ring_addr: USER_ADDRESS + ring.available,
        used_ring_addr: USER_ADDRESS + ring.used,
        log_addr: None,
    };
    front.set_vring_addr(ring.index, &addresses)?;
    // Both orders are allowed, and a device has to bear both.
    if ring.index.is_multiple_of(2) {
        front.set_vring_kick(ring.index, ring.kick)?;
        front.set_vring_call(ring.index, ring.call)?;
    } else {
        front.set_vring_call(ring.index, ring.call)?;
        front.set_vring_kick(ring.index, ring.kick)?;
    }
    front.set_vring_enable(ring.index, true)
}
