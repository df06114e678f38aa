//! A disk driver in place of QEMU and its guest: a vhost-user-blk client with one queue and one request at a time.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dyad_rig::wait;
use dyad_testkit::vhost::{Queues, Ring, SharedMemory, start_ring};
use vhost::VhostBackend as _;
use vhost::vhost_user::Frontend;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Most bytes of one request.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Request type "read" (virtio 1.2, 5.2.6); "write" and "flush" below.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
/// Descriptor flag "another descriptor follows" (virtio 1.2, 2.7.5); "the device writes this buffer" below.
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_DEVICE_WRITES: u16 = 2;
/// Feature bit VIRTIO_BLK_F_FLUSH (virtio 1.2, 5.2.3); VIRTIO_F_VERSION_1 (chapter 6) below.
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Descriptors of the queue: three for one request, rounded up to a power of two.
const QUEUE_SIZE: u16 = 4;
/// Guest addresses in the shared memory: descriptor table, rings, header and status of the request, data.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const STATUS: u64 = 0x3100;
const STATUS_DESCRIPTOR: Descriptor =
    Descriptor { address: STATUS, length: 1, flags: DESCRIPTOR_DEVICE_WRITES, next: 0 };
const DATA: u64 = 0x10_0000;
const MEMORY: u64 = DATA + MAX_REQUEST_BYTES as u64;
/// Longest wait for an answer or a connection: a killed daemon has restarted within this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// An entry of the descriptor table (virtio 1.2, 2.7.5).
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// A connection to the device of one volume, and the memory shared with it.
pub struct DiskDriver {
    socket: PathBuf,
    memory: GuestMemoryMmap,
    shared: SharedMemory,
    kick: EventFd,
    call: EventFd,
    /// Waits for `call`, the device's signal that it answered.
    signal: Epoll,
    frontend: Option<Frontend>,
    requests_offered: u16,
}

impl DiskDriver {
    /// Connects to the device at `socket`.
    ///
    /// # Errors
    /// No daemon serves the socket, or the device lacks a feature that the driver needs.
    pub fn connect(socket: &Path) -> Result<Self> {
        let shared = SharedMemory::new(MEMORY)?;
        let (call, signal) = (EventFd::new(EFD_NONBLOCK)?, Epoll::new()?);
        signal.ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))?;
        let mut device = Self {
            socket: socket.to_owned(),
            memory: shared.guest.clone(),
            shared,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call,
            signal,
            frontend: None,
            requests_offered: 0,
        };
        device.reconnect()?;
        Ok(device)
    }

    /// Connects again after the daemon was restarted, as QEMU does. The new daemon finds requests that were under way
    /// in the shared in-flight record and carries them out.
    ///
    /// # Errors
    /// No daemon serves the socket.
    pub fn reconnect(&mut self) -> Result<()> {
        self.frontend = None;
        let mut frontend =
            wait::until_ok("the device's socket", ANSWER_DEADLINE, || Ok(Frontend::connect(&self.socket, 1)?))?;
        ensure!(frontend.get_features()? & FEATURE_FLUSH != 0, "The device has no flush.");
        self.shared.share(&mut frontend, FEATURE_FLUSH | FEATURE_VERSION_1, Queues { count: 1, size: QUEUE_SIZE })?;
        let ring = Ring {
            index: 0,
            size: QUEUE_SIZE,
            next_available: self.requests_answered()?,
            descriptors: DESCRIPTORS,
            available: AVAILABLE,
            used: USED,
            kick: &self.kick,
            call: &self.call,
        };
        start_ring(&mut frontend, &ring)?;
        self.frontend = Some(frontend);
        Ok(())
    }

    /// Writes `data` at byte `offset`, both multiples of 512, and waits for the answer.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.begin_write(offset, data)?;
        self.finish()
    }

    /// Sends a write request and does not wait for its answer; [`DiskDriver::finish`] does.
    ///
    /// # Errors
    /// The request is too large.
    pub fn begin_write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        ensure!(data.len() <= MAX_REQUEST_BYTES, "{} bytes are more than one request holds.", data.len());
        self.memory.write_slice(data, GuestAddress(DATA))?;
        self.begin(WRITE, offset, data.len(), 0)
    }

    /// Reads `data.len()` bytes at byte `offset`, both multiples of 512.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        ensure!(data.len() <= MAX_REQUEST_BYTES, "{} bytes are more than one request holds.", data.len());
        self.begin(READ, offset, data.len(), DESCRIPTOR_DEVICE_WRITES)?;
        self.finish()?;
        self.memory.read_slice(data, GuestAddress(DATA))?;
        Ok(())
    }

    /// Sends a flush, which makes every answered write durable, and waits for the answer.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn flush(&mut self) -> Result<()> {
        self.begin(FLUSH, 0, 0, 0)?;
        self.finish()
    }

    /// Waits for the answer to the request that was sent.
    ///
    /// # Errors
    /// The device reports an error, or does not answer in time.
    pub fn finish(&mut self) -> Result<()> {
        while !self.is_answered()? {
            let mut events = [EpollEvent::default()];
            let ready = self.signal.wait(i32::try_from(ANSWER_DEADLINE.as_millis())?, &mut events)?;
            ensure!(ready > 0, "The device did not answer for {} s.", ANSWER_DEADLINE.as_secs());
            // Clears the signal. An error means that it is clear already.
            let _ = self.call.read();
        }
        match self.memory.read_obj::<u8>(GuestAddress(STATUS))? {
            0 => Ok(()),
            status => bail!("The device reports error {status}."),
        }
    }

    /// Whether the request that was sent has its answer.
    ///
    /// # Errors
    /// The rings cannot be read.
    pub fn is_answered(&self) -> Result<bool> {
        Ok(self.requests_answered()? == self.requests_offered)
    }

    /// Index of the used ring: number of answered requests, modulo 2^16.
    fn requests_answered(&self) -> Result<u16> {
        Ok(self.memory.load(GuestAddress(USED + 2), Ordering::Acquire)?)
    }

    fn begin(&mut self, kind: u32, offset: u64, length: usize, flags: u16) -> Result<()> {
        self.memory.write_obj(u64::from(kind), GuestAddress(HEADER))?;
        self.memory.write_obj(offset / 512, GuestAddress(HEADER + 8))?;
        self.memory.write_obj(0xff_u8, GuestAddress(STATUS))?;
        self.descriptor(0, Descriptor { address: HEADER, length: 16, flags: DESCRIPTOR_NEXT, next: 1 })?;
        if length == 0 {
            self.descriptor(1, STATUS_DESCRIPTOR)?;
        } else {
            self.descriptor(
                1,
                Descriptor { address: DATA, length: u32::try_from(length)?, flags: flags | DESCRIPTOR_NEXT, next: 2 },
            )?;
            self.descriptor(2, STATUS_DESCRIPTOR)?;
        }
        let slot = u64::from(self.requests_offered % QUEUE_SIZE);
        self.memory.write_obj(0_u16, GuestAddress(AVAILABLE + 4 + 2 * slot))?;
        self.requests_offered = self.requests_offered.wrapping_add(1);
        self.memory.store(self.requests_offered, GuestAddress(AVAILABLE + 2), Ordering::SeqCst)?;
        self.kick.write(1)?;
        Ok(())
    }

    fn descriptor(&self, number: u64, descriptor: Descriptor) -> Result<()> {
        let place = DESCRIPTORS + 16 * number;
        self.memory.write_obj(descriptor.address, GuestAddress(place))?;
        self.memory.write_obj(descriptor.length, GuestAddress(place + 8))?;
        self.memory.write_obj(descriptor.flags, GuestAddress(place + 12))?;
        self.memory.write_obj(descriptor.next, GuestAddress(place + 14))?;
        Ok(())
    }
}
