//! A tiny guest with a vhost-user front-end of its own, and a volume in memory.

#![allow(dead_code)] // each test file uses its part

pub mod volume;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

/// Flags of a descriptor.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const QUEUE_SIZE: u16 = 64;
/// Requests a queue can hold: each has its three descriptors.
pub const SLOTS: u16 = 16;
/// Room for the data of one request.
pub const ROOM: u64 = 64 << 10;
const MEMORY: u64 = 16 << 20;
/// Where the guest's memory pretends to be in the front-end's address space.
const USER: u64 = 0x7f00_0000_0000;

const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// A memfd as QEMU makes them.
pub fn memfd(size: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest", flags).unwrap());
    file.set_len(size).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

/// Wait until `ready` says yes, for at most ten seconds.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a driver keeps about one queue.
pub struct DriverQueue {
    pub avail_idx: u16,
    pub seen_used: u16,
    pub kick: EventFd,
    pub call: EventFd,
}

/// A guest: its memory and its driver. It survives the device it talks to.
pub struct Guest {
    pub memory: GuestMemoryMmap,
    file: File,
    pub queues: Vec<DriverQueue>,
    pub inflight: Option<(VhostUserInflight, File)>,
    pub front: Option<Frontend>,
    pub features: u64,
}

impl Guest {
    pub fn new(queues: usize) -> Self {
        let file = memfd(MEMORY);
        let map = FileOffset::new(file.try_clone().unwrap(), 0);
        let ranges = [(GuestAddress(0), MEMORY as usize, Some(map))];
        let queue = |_| DriverQueue {
            avail_idx: 0,
            seen_used: 0,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        };
        Self {
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            file,
            queues: (0..queues).map(queue).collect(),
            inflight: None,
            front: None,
            features: EVENT_IDX | VERSION_1 | 0x7fff,
        }
    }

    /// Connect and start all queues, as QEMU does, also after the device was gone.
    pub fn connect(&mut self, path: &Path) -> Result<(), vhost::Error> {
        let mut front = Frontend::connect(path, self.queues.len() as u64).unwrap();
        let offered = front.get_features()?;
        let protocol = front.get_protocol_features()?;
        for needed in [
            VhostUserProtocolFeatures::INFLIGHT_SHMFD,
            VhostUserProtocolFeatures::CONFIG,
            VhostUserProtocolFeatures::MQ,
            VhostUserProtocolFeatures::LOG_SHMFD,
        ] {
            assert!(protocol.contains(needed));
        }
        front.set_protocol_features(protocol)?;
        front.set_owner()?;
        let features = offered & (self.features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
        front.set_features(features)?;
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        if self.inflight.is_none() {
            let want = VhostUserInflight::new(0, 0, self.queues.len() as u16, QUEUE_SIZE);
            self.inflight = Some(front.get_inflight_fd(&want)?);
        }
        let (message, file) = self.inflight.as_ref().unwrap();
        front.set_inflight_fd(message, file.as_raw_fd())?;
        front.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }])?;
        for (index, queue) in self.queues.iter().enumerate() {
            front.set_vring_num(index, QUEUE_SIZE)?;
            let used = self.memory.load(GuestAddress(ring(index) + 0x2002), Ordering::Acquire);
            front.set_vring_base(index, used.unwrap())?;
            front.set_vring_addr(
                index,
                &VringConfigData {
                    queue_max_size: QUEUE_SIZE,
                    queue_size: QUEUE_SIZE,
                    flags: 0,
                    desc_table_addr: USER + ring(index),
                    avail_ring_addr: USER + ring(index) + 0x1000,
                    used_ring_addr: USER + ring(index) + 0x2000,
                    log_addr: None,
                },
            )?;
            // Both orders are allowed.
            if index % 2 == 0 {
                front.set_vring_kick(index, &queue.kick)?;
                front.set_vring_call(index, &queue.call)?;
            } else {
                front.set_vring_call(index, &queue.call)?;
                front.set_vring_kick(index, &queue.kick)?;
            }
            front.set_vring_enable(index, true)?;
        }
        self.front = Some(front);
        Ok(())
    }

    pub fn front(&mut self) -> &mut Frontend {
        self.front.as_mut().unwrap()
    }

    /// Write descriptor `at` of a queue.
    pub fn descriptor(&self, queue: usize, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let place = ring(queue) + 16 * u64::from(at);
        self.memory.write_obj(addr, GuestAddress(place)).unwrap();
        self.memory.write_obj(len, GuestAddress(place + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(place + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(place + 14)).unwrap();
    }

    /// Put a head into the available ring and kick.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let avail = self.queues[queue].avail_idx;
        let place = ring(queue) + 0x1004 + 2 * u64::from(avail % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.set_avail(queue, avail.wrapping_add(1));
    }

    /// Move the available ring's index and kick.
    pub fn set_avail(&mut self, queue: usize, idx: u16) {
        self.queues[queue].avail_idx = idx;
        let place = GuestAddress(ring(queue) + 0x1002);
        self.memory.store(idx, place, Ordering::SeqCst).unwrap();
        self.queues[queue].kick.write(1).unwrap();
    }

    /// Write a header into a slot.
    pub fn header(&self, queue: usize, slot: u16, kind: u32, sector: u64) {
        let header = GuestAddress(header(queue, slot));
        self.memory.write_obj(u64::from(kind), header).unwrap();
        self.memory.write_obj(sector, GuestAddress(header.0 + 8)).unwrap();
    }

    /// Start a request in a free slot: header, data and status in one descriptor each.
    pub fn submit(&mut self, queue: usize, slot: u16, kind: u32, sector: u64, data: &[u8]) {
        assert!(slot < SLOTS && data.len() as u64 <= ROOM);
        self.header(queue, slot, kind, sector);
        let to_device = !matches!(kind, IN | GET_ID);
        if to_device {
            self.memory.write_slice(data, GuestAddress(room(queue, slot))).unwrap();
        }
        self.memory.write_obj(0xffu8, GuestAddress(status(queue, slot))).unwrap();
        let head = slot * 3;
        self.descriptor(queue, head, header(queue, slot), 16, NEXT, head + 1);
        let flags = if to_device { NEXT } else { NEXT | WRITE };
        self.descriptor(queue, head + 1, room(queue, slot), data.len() as u32, flags, head + 2);
        self.descriptor(queue, head + 2, status(queue, slot), 1, WRITE, 0);
        self.offer(queue, head);
    }

    /// The next answered slot, if there is one: (slot, status, bytes written).
    pub fn poll(&mut self, queue: usize) -> Option<(u16, u8, u32)> {
        let seen = self.queues[queue].seen_used;
        let used: u16 = self.memory.load(GuestAddress(ring(queue) + 0x2002), Ordering::Acquire).unwrap();
        if used == seen {
            return None;
        }
        let place = ring(queue) + 0x2004 + 8 * u64::from(seen % QUEUE_SIZE);
        let head: u32 = self.memory.read_obj(GuestAddress(place)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(place + 4)).unwrap();
        self.queues[queue].seen_used = seen.wrapping_add(1);
        // Ask for a notification of the next answer (virtio 2.7.10: used_event).
        let event = GuestAddress(ring(queue) + 0x1004 + 2 * u64::from(QUEUE_SIZE));
        self.memory.store(seen.wrapping_add(1), event, Ordering::SeqCst).unwrap();
        let slot = head as u16 / 3;
        let status = self.memory.read_obj(GuestAddress(status(queue, slot))).unwrap();
        Some((slot, status, len))
    }

    /// Wait for the next answer.
    pub fn wait(&mut self, queue: usize) -> (u16, u8, u32) {
        let mut answer = None;
        wait_for("an answer", || {
            answer = self.poll(queue);
            answer.is_some()
        });
        answer.unwrap()
    }

    /// One request from start to end; returns its status and the data after it.
    pub fn run(&mut self, queue: usize, kind: u32, sector: u64, data: &[u8]) -> (u8, Vec<u8>) {
        self.submit(queue, 0, kind, sector, data);
        let (slot, status, _) = self.wait(queue);
        assert_eq!(slot, 0);
        (status, self.data(queue, 0, data.len()))
    }

    /// The data of a slot.
    pub fn data(&self, queue: usize, slot: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(room(queue, slot))).unwrap();
        bytes
    }

    /// True if the device signalled the queue since the last time.
    pub fn interrupted(&self, queue: usize) -> bool {
        self.queues[queue].call.read().is_ok()
    }
}

/// One range for DISCARD and WRITE_ZEROES.
pub fn range(sector: u64, count: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// Where a queue's rings are: descriptors, available at +0x1000, used at +0x2000.
pub fn ring(queue: usize) -> u64 {
    0x1_0000 * (queue as u64 + 1)
}

pub fn header(queue: usize, slot: u16) -> u64 {
    ring(queue) + 0x3000 + 16 * u64::from(slot)
}

pub fn status(queue: usize, slot: u16) -> u64 {
    ring(queue) + 0x4000 + u64::from(slot)
}

/// Where the data of a slot is.
pub fn room(queue: usize, slot: u16) -> u64 {
    (2 << 20) * (queue as u64 + 1) + ROOM * u64::from(slot)
}
