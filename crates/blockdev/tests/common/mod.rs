//! Fixtures: a simulated guest with its own vhost-user front-end, and a volume in memory.

#![allow(dead_code)] // each test file uses some of these functions

pub mod volume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dyad_blockdev::{Config, Server, ServerHandle};
use dyad_testkit::vhost::{Queues, Ring, SharedMemory, start_ring};
use tempfile::TempDir;
use vhost::vhost_user::{Frontend, VhostUserProtocolFeatures};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use volume::Volume;

// Types of virtio-blk requests (virtio 5.2.6).
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

// Flags of a descriptor (virtio 2.7.5).
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Number of descriptors of each queue.
pub const QUEUE_SIZE: u16 = 64;
/// Number of requests that a guest can have in flight in a queue. Request `slot` uses the descriptors from `3 * slot`
/// on.
pub const SLOTS: u16 = 16;
/// Bytes of the data buffer of one request.
pub const DATA_BYTES: u64 = 64 << 10;
/// Bytes of the guest's memory.
const MEMORY: u64 = 16 << 20;

/// Feature bit VIRTIO_RING_F_EVENT_IDX.
const EVENT_IDX: u64 = 1 << 29;
/// Feature bit VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// Waits until `ready` returns true; panics after 10 s.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A device that serves a volume, and a guest connected to it.
pub struct Served {
    /// The folder of the socket, removed when this is dropped.
    pub dir: TempDir,
    pub path: PathBuf,
    pub volume: Arc<Volume>,
    pub server: ServerHandle,
    pub guest: Guest,
}

/// Serves a new volume of `bytes` bytes to a new guest with `queues` queues.
pub fn serve(queues: usize, bytes: u64, config: Config) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.sock");
    let volume = Volume::new(bytes);
    let server = Server::start(&path, volume.clone(), config).unwrap();
    let mut guest = Guest::new(queues);
    guest.connect(&path).unwrap();
    Served { dir, path, volume, server, guest }
}

/// The driver's side of one queue.
pub struct DriverQueue {
    /// Index of the available ring that the driver wrote last.
    pub avail_idx: u16,
    /// Index of the used ring up to which the driver has read the answers.
    pub seen_used: u16,
    pub kick: EventFd,
    pub call: EventFd,
}

/// A guest: its memory and its driver. It keeps its state when the device ends.
pub struct Guest {
    pub memory: GuestMemoryMmap,
    shared: SharedMemory,
    pub queues: Vec<DriverQueue>,
    /// The connection to the device, as QEMU has it.
    pub front: Option<Frontend>,
    /// The feature bits that the driver accepts.
    pub features: u64,
}

impl Guest {
    pub fn new(queues: usize) -> Self {
        let shared = SharedMemory::new(MEMORY).unwrap();
        let queue = |_| DriverQueue {
            avail_idx: 0,
            seen_used: 0,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        };
        Self {
            memory: shared.guest.clone(),
            shared,
            queues: (0..queues).map(queue).collect(),
            front: None,
            features: EVENT_IDX | VERSION_1 | 0x7fff,
        }
    }

    /// Connects to the device and starts all queues, as QEMU does at first and after each end of the connection.
    pub fn connect(&mut self, path: &Path) -> Result<(), vhost::Error> {
        let mut front = Frontend::connect(path, self.queues.len() as u64).unwrap();
        let protocol = self.shared.share(
            &mut front,
            self.features,
            Queues { count: self.queues.len() as u16, size: QUEUE_SIZE },
        )?;
        for needed in [
            VhostUserProtocolFeatures::INFLIGHT_SHMFD,
            VhostUserProtocolFeatures::CONFIG,
            VhostUserProtocolFeatures::MQ,
            VhostUserProtocolFeatures::LOG_SHMFD,
        ] {
            assert!(protocol.contains(needed));
        }
        for (index, queue) in self.queues.iter().enumerate() {
            let used = self.memory.load(GuestAddress(ring(index) + 0x2002), Ordering::Acquire);
            let ring = Ring {
                index,
                size: QUEUE_SIZE,
                next_available: used.unwrap(),
                descriptors: ring(index),
                available: ring(index) + 0x1000,
                used: ring(index) + 0x2000,
                kick: &queue.kick,
                call: &queue.call,
            };
            start_ring(&mut front, &ring)?;
        }
        self.front = Some(front);
        Ok(())
    }

    pub fn front(&mut self) -> &mut Frontend {
        self.front.as_mut().unwrap()
    }

    /// Writes descriptor `at` of a queue.
    pub fn descriptor(&self, queue: usize, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let place = ring(queue) + 16 * u64::from(at);
        self.memory.write_obj(addr, GuestAddress(place)).unwrap();
        self.memory.write_obj(len, GuestAddress(place + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(place + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(place + 14)).unwrap();
    }

    /// Puts a head into the available ring and kicks the device.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let avail = self.queues[queue].avail_idx;
        let place = ring(queue) + 0x1004 + 2 * u64::from(avail % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.set_avail(queue, avail.wrapping_add(1));
    }

    /// Sets the index of the available ring and kicks the device.
    pub fn set_avail(&mut self, queue: usize, idx: u16) {
        self.queues[queue].avail_idx = idx;
        let place = GuestAddress(ring(queue) + 0x1002);
        self.memory.store(idx, place, Ordering::SeqCst).unwrap();
        self.queues[queue].kick.write(1).unwrap();
    }

    /// Writes the header of request `slot`.
    pub fn header(&self, queue: usize, slot: u16, kind: u32, sector: u64) {
        let header = GuestAddress(header(queue, slot));
        self.memory.write_obj(u64::from(kind), header).unwrap();
        self.memory.write_obj(sector, GuestAddress(header.0 + 8)).unwrap();
    }

    /// Starts request `slot`, with one descriptor each for header, data and status.
    pub fn submit(&mut self, queue: usize, slot: u16, kind: u32, sector: u64, data: &[u8]) {
        assert!(slot < SLOTS && data.len() as u64 <= DATA_BYTES);
        self.header(queue, slot, kind, sector);
        let to_device = !matches!(kind, IN | GET_ID);
        if to_device {
            self.memory.write_slice(data, GuestAddress(data_buffer(queue, slot))).unwrap();
        }
        self.memory.write_obj(0xffu8, GuestAddress(status(queue, slot))).unwrap();
        let head = slot * 3;
        self.descriptor(queue, head, header(queue, slot), 16, NEXT, head + 1);
        let flags = if to_device { NEXT } else { NEXT | WRITE };
        self.descriptor(queue, head + 1, data_buffer(queue, slot), data.len() as u32, flags, head + 2);
        self.descriptor(queue, head + 2, status(queue, slot), 1, WRITE, 0);
        self.offer(queue, head);
    }

    /// The next answer, if there is one: (slot, status, bytes written).
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
        // The driver asks for a notification of the next answer (virtio 2.7.10: used_event).
        let event = GuestAddress(ring(queue) + 0x1004 + 2 * u64::from(QUEUE_SIZE));
        self.memory.store(seen.wrapping_add(1), event, Ordering::SeqCst).unwrap();
        let slot = head as u16 / 3;
        let status = self.memory.read_obj(GuestAddress(status(queue, slot))).unwrap();
        Some((slot, status, len))
    }

    /// Waits for the next answer: (slot, status, bytes written).
    pub fn wait(&mut self, queue: usize) -> (u16, u8, u32) {
        let mut answer = None;
        wait_for("an answer", || {
            answer = self.poll(queue);
            answer.is_some()
        });
        answer.unwrap()
    }

    /// Runs one request from start to answer; returns its status and the content of its data buffer.
    pub fn run(&mut self, queue: usize, kind: u32, sector: u64, data: &[u8]) -> (u8, Vec<u8>) {
        self.submit(queue, 0, kind, sector, data);
        let (slot, status, _) = self.wait(queue);
        assert_eq!(slot, 0);
        (status, self.data(queue, 0, data.len()))
    }

    /// The first `len` bytes of the data buffer of request `slot`.
    pub fn data(&self, queue: usize, slot: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(data_buffer(queue, slot))).unwrap();
        bytes
    }

    /// Whether the device has interrupted the driver for this queue since the last call.
    pub fn interrupted(&self, queue: usize) -> bool {
        self.queues[queue].call.read().is_ok()
    }
}

/// The data of a DISCARD or WRITE_ZEROES of `count` sectors.
pub fn range(sector: u64, count: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// Address of the rings of a queue: the descriptor table, at +0x1000 the available ring, at +0x2000 the used ring.
pub fn ring(queue: usize) -> u64 {
    0x1_0000 * (queue as u64 + 1)
}

/// Address of the header of a request.
pub fn header(queue: usize, slot: u16) -> u64 {
    ring(queue) + 0x3000 + 16 * u64::from(slot)
}

/// Address of the status byte of a request.
pub fn status(queue: usize, slot: u16) -> u64 {
    ring(queue) + 0x4000 + u64::from(slot)
}

/// Address of the data buffer of a request.
pub fn data_buffer(queue: usize, slot: u16) -> u64 {
    (2 << 20) * (queue as u64 + 1) + DATA_BYTES * u64::from(slot)
}
