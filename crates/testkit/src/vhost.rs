//! A vhost-user front-end, the part of QEMU: the memory of a guest, and the setup of a device, also after its restart.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// Address of the guest's memory in the front-end's address space, as told to the device. The device only uses it to
/// translate ring addresses, so no memory has to be there.
const USER_ADDRESS: u64 = 0x7f00_0000_0000;

/// A file in memory (memfd) of `bytes` bytes, sealed so that its size cannot change.
///
/// # Errors
/// The kernel has no memory for it.
pub fn memfd(bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

/// The memory of a guest, shared with a device. It stays when the device is restarted.
pub struct SharedMemory {
    /// The memory, mapped, by guest addresses from 0.
    pub guest: GuestMemoryMmap,
    file: File,
    bytes: u64,
    /// The device's record of requests under way. The front-end gives it to the device again after a restart.
    inflight: Option<(VhostUserInflight, File)>,
}

/// Number and size of the virtqueues of a device.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    pub count: u16,
    /// Descriptors of each queue.
    pub size: u16,
}

/// One virtqueue of a device; addresses are guest addresses.
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
    /// Eventfd by which the driver tells the device that there are requests.
    pub kick: &'a EventFd,
    /// Eventfd by which the device tells the driver that there are answers.
    pub call: &'a EventFd,
}

impl SharedMemory {
    /// Memory of `bytes` bytes, filled with zeros, not shared with a device yet.
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

    /// Sets up a device: accepts those `features` that it offers and all of its protocol features, and gives it the
    /// memory and the record of requests under way, which the device creates at the first setup. [`start_ring`] comes
    /// next. Returns the protocol features.
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

/// Gives the device a ring, and enables the ring.
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
    // Kick and call may come in any sequence, and a device must accept both.
    if ring.index.is_multiple_of(2) {
        front.set_vring_kick(ring.index, ring.kick)?;
        front.set_vring_call(ring.index, ring.call)?;
    } else {
        front.set_vring_call(ring.index, ring.call)?;
        front.set_vring_kick(ring.index, ring.kick)?;
    }
    front.set_vring_enable(ring.index, true)
}
