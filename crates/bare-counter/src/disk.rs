//! The virtio disk, with one request at a time that the caller waits for in its own way.

use core::fmt;

use bitflags::bitflags;
use dyad_counter::BLOCK;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport as _;
use virtio_drivers::transport::pci::PciTransport;

use crate::dma::Services;
use crate::pci;

/// Number of the queue that every disk has.
const QUEUE: u16 = 0;
/// Entries of the queue; one request takes three.
const QUEUE_ENTRIES: usize = 4;
const SECTOR_BYTES: u64 = 512;

bitflags! {
    /// Features of the device that this driver knows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Features: u64 {
        const FLUSH = 1 << 9;
        const VERSION_1 = 1 << 32;
    }
}

/// What a request does; the numbers are those of the virtio standard, 5.2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum RequestType {
    Read = 0,
    Write = 1,
    Flush = 4,
}

/// Why the disk cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// There is no virtio disk on the first bus.
    Missing,
    /// The device cannot flush, so nothing can be acknowledged.
    NoFlush,
    /// The library refused the queue or a request.
    Queue(virtio_drivers::Error),
    /// The device completed a request with this status: 1 = input or output error, 2 = unsupported.
    Status(u8),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "there is no virtio disk"),
            Self::NoFlush => write!(f, "the disk cannot flush"),
            Self::Queue(error) => write!(f, "the disk's queue: {error}"),
            Self::Status(status) => write!(f, "the disk answered with status {status}"),
        }
    }
}

/// The disk of the guest.
pub struct Disk {
    transport: PciTransport,
    queue: VirtQueue<Services, QUEUE_ENTRIES>,
}

impl Disk {
    /// Finds and starts the disk.
    ///
    /// # Errors
    /// There is none, or it cannot flush.
    pub fn open() -> Result<Self, DiskError> {
        let mut transport = pci::find_disk().ok_or(DiskError::Missing)?;
        if !transport.begin_init(Features::all()).contains(Features::FLUSH) {
            return Err(DiskError::NoFlush);
        }
        let queue = VirtQueue::new(&mut transport, QUEUE, false, false).map_err(DiskError::Queue)?;
        transport.finish_init();
        Ok(Self { transport, queue })
    }

    /// Reads the block at this byte offset; calls `wait` until the device has answered.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn read(&mut self, offset: u64, block: &mut [u8; BLOCK], wait: &mut impl FnMut()) -> Result<(), DiskError> {
        let header = header(RequestType::Read, offset);
        let mut status = [u8::MAX];
        self.request(&[&header], &mut [block, &mut status], wait)?;
        checked(status)
    }

    /// Writes the block at this byte offset. The write is durable only after a flush.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn write(&mut self, offset: u64, block: &[u8; BLOCK], wait: &mut impl FnMut()) -> Result<(), DiskError> {
        let header = header(RequestType::Write, offset);
        let mut status = [u8::MAX];
        self.request(&[&header, block], &mut [&mut status], wait)?;
        checked(status)
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn flush(&mut self, wait: &mut impl FnMut()) -> Result<(), DiskError> {
        let header = header(RequestType::Flush, 0);
        let mut status = [u8::MAX];
        self.request(&[&header], &mut [&mut status], wait)?;
        checked(status)
    }

    /// Ends the device's interrupt, which it asserts until this register is read. To be called after each sleep: an interrupt
    /// that stays asserted ends each sleep at once.
    pub fn end_interrupt(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    fn request<'a>(
        &mut self,
        inputs: &'a [&'a [u8]],
        outputs: &'a mut [&'a mut [u8]],
        wait: &mut impl FnMut(),
    ) -> Result<(), DiskError> {
        // SAFETY: the buffers are not used until `pop_used` has succeeded below.
        let token = unsafe { self.queue.add(inputs, outputs) }.map_err(DiskError::Queue)?;
        self.transport.notify(QUEUE);
        while !self.queue.can_pop() {
            wait();
            self.end_interrupt();
        }
        // SAFETY: these are the buffers that were added.
        unsafe { self.queue.pop_used(token, inputs, outputs) }.map_err(DiskError::Queue)?;
        Ok(())
    }
}

/// The header of a request: type, a reserved word, and the first sector.
fn header(request: RequestType, offset: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(request as u32).to_le_bytes());
    header[8..].copy_from_slice(&(offset / SECTOR_BYTES).to_le_bytes());
    header
}

fn checked([status]: [u8; 1]) -> Result<(), DiskError> {
    if status == 0 { Ok(()) } else { Err(DiskError::Status(status)) }
}
