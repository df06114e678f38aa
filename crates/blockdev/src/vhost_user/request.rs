//! Reads a request from a chain of descriptors (virtio 2.7.5 and 5.2.6).
//!
//! A driver may cut header, data and status into any number of descriptors (virtio 2.7.4). So a chain is read as two
//! byte strings: the bytes that the device may read, then the bytes that it may write.

use virtio_bindings::bindings::virtio_blk;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory as _, GuestMemoryError, Permissions};

use crate::limits::SECTOR;
use crate::vhost_user::inflight::Head;
use crate::vhost_user::memory::GuestMemory;

/// Largest number of descriptors of a chain that is read. No queue has more, and no chain may be longer than its queue.
const MAX_CHAIN: usize = 1024;
/// Length of `struct virtio_blk_req` before the data.
const HEADER: u64 = 16;
/// Length of `struct virtio_blk_discard_write_zeroes`.
const RANGE: u64 = 16;

/// A violation of the rules for virtqueues. It ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("a descriptor index is not smaller than the size of its table")]
    Index,
    #[error("a chain of descriptors is a loop or longer than its queue")]
    Loop,
    #[error("an indirect descriptor is nested or its table has a wrong length")]
    Indirect,
    #[error("a chain has something to read after something to write")]
    Order,
    #[error("a chain has no room for header and status")]
    Short,
    #[error("the available ring moved by more than its size")]
    Available,
    #[error("a chain of descriptors was made available while it was in use")]
    Twice,
    #[error("a descriptor points outside of guest memory")]
    Outside,
    #[error("the queue was started before its size, addresses and memory were known")]
    NotConfigured,
    #[error("the queue lies outside of guest memory")]
    Address(#[from] GuestMemoryError),
    #[error("the queue cannot be used")]
    Queue(#[from] virtio_queue::Error),
}

/// A byte string that lies in several ranges of guest memory.
#[derive(Debug, Default, Clone)]
pub(crate) struct Segments {
    /// Address and length of each range.
    parts: Vec<(GuestAddress, u32)>,
    /// Sum of the lengths.
    len: u64,
}

impl Segments {
    fn push(&mut self, addr: GuestAddress, len: u32) {
        if len > 0 {
            self.parts.push((addr, len));
            self.len += u64::from(len);
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Copies the bytes from the offset `skip` on into `to`. The caller has checked that there are enough bytes.
    pub fn read(&self, memory: &GuestMemory, skip: u64, to: &mut [u8]) -> Result<(), GuestMemoryError> {
        let mut done = 0;
        self.walk(skip, to.len(), |addr, len| {
            memory.read_slice(&mut to[done..done + len], addr)?;
            done += len;
            Ok(())
        })
    }

    /// Copies `from` over the bytes from the offset `skip` on. The caller has checked that there are enough bytes.
    pub fn write(&self, memory: &GuestMemory, skip: u64, from: &[u8]) -> Result<(), GuestMemoryError> {
        let mut done = 0;
        self.walk(skip, from.len(), |addr, len| {
            memory.write_slice(&from[done..done + len], addr)?;
            done += len;
            Ok(())
        })
    }

    /// Calls `visit` with each range of guest memory that holds one of the `left` bytes from the offset `skip` on.
    fn walk(
        &self,
        mut skip: u64,
        mut left: usize,
        mut visit: impl FnMut(GuestAddress, usize) -> Result<(), GuestMemoryError>,
    ) -> Result<(), GuestMemoryError> {
        for (addr, len) in &self.parts {
            if left == 0 {
                break;
            }
            if skip >= u64::from(*len) {
                skip -= u64::from(*len);
                continue;
            }
            let start = addr.checked_add(skip).ok_or(GuestMemoryError::GuestAddressOverflow)?;
            let here = left.min((u64::from(*len) - skip) as usize);
            visit(start, here)?;
            left -= here;
            skip = 0;
        }
        Ok(())
    }

    /// Removes the last byte and returns its address.
    fn pop_byte(&mut self) -> Option<GuestAddress> {
        let (addr, len) = self.parts.last_mut()?;
        *len -= 1;
        let last = addr.checked_add(u64::from(*len))?;
        if *len == 0 {
            self.parts.pop();
        }
        self.len -= 1;
        Some(last)
    }
}

/// The operation that a driver requests. Offsets and lengths are in bytes, are multiples of [`SECTOR`], and lie inside
/// the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    WriteZeroes {
        offset: u64,
        len: u64,
    },
    Flush,
    /// Read of the serial number.
    GetId,
    /// A type or flag that this device does not know. The answer has the status UNSUPP.
    Unknown,
    /// A range outside of the volume, or a wrong length. The answer has the status IOERR.
    Invalid,
}

/// A request of a driver, as its chain of descriptors says.
#[derive(Debug)]
pub(crate) struct GuestRequest {
    pub operation: Operation,
    /// The guest memory that is read or written: for a read and the serial number the memory for the data, otherwise
    /// header and data.
    pub data: Segments,
    /// Bytes of the header at the start of `data`: 16, or 0 for a read and the serial number.
    pub skip: u64,
    /// Address of the status byte.
    pub status: GuestAddress,
}

impl GuestRequest {
    /// Number of data bytes without the header.
    pub fn data_len(&self) -> u64 {
        self.data.len() - self.skip
    }

    /// Makes a request that would change the volume invalid, so that it gets an I/O error (virtio 5.2.6.2,
    /// `VIRTIO_BLK_F_RO`).
    pub fn refuse_changes(&mut self) {
        if let Operation::Write { .. } | Operation::Discard { .. } | Operation::WriteZeroes { .. } = self.operation {
            self.operation = Operation::Invalid;
        }
    }
}

/// Reads the request whose chain starts at `head` of the descriptor table. `capacity` is the size of the volume in
/// bytes.
pub(crate) fn parse(
    memory: &GuestMemory,
    table: GuestAddress,
    queue_size: u16,
    head: Head,
    capacity: u64,
) -> Result<GuestRequest, RingError> {
    let (readable, mut writable) = read_chain(memory, table, queue_size, head)?;
    let status = writable.pop_byte().ok_or(RingError::Short)?;
    if readable.len() < HEADER {
        return Err(RingError::Short);
    }
    let mut header = [0; HEADER as usize];
    readable.read(memory, 0, &mut header)?;
    let (kind, sector) = (u32_at(&header, 0), u64_at(&header, 8));

    let inside = |len: u64| {
        let offset = sector.checked_mul(SECTOR)?;
        let is_valid = len > 0 && len.is_multiple_of(SECTOR) && offset.checked_add(len)? <= capacity;
        is_valid.then_some(offset)
    };
    let operation = match kind {
        virtio_blk::VIRTIO_BLK_T_IN => inside(writable.len()).map(|offset| Operation::Read { offset }),
        virtio_blk::VIRTIO_BLK_T_OUT => inside(readable.len() - HEADER).map(|offset| Operation::Write { offset }),
        virtio_blk::VIRTIO_BLK_T_FLUSH => Some(Operation::Flush),
        virtio_blk::VIRTIO_BLK_T_GET_ID => Some(Operation::GetId),
        virtio_blk::VIRTIO_BLK_T_DISCARD | virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES => {
            parse_range(memory, &readable, kind, capacity)?
        }
        _ => Some(Operation::Unknown),
    };
    let to_driver = matches!(operation, Some(Operation::Read { .. } | Operation::GetId));
    Ok(GuestRequest {
        operation: operation.unwrap_or(Operation::Invalid),
        data: if to_driver { writable } else { readable },
        skip: if to_driver { 0 } else { HEADER },
        status,
    })
}

/// The operation of a DISCARD or WRITE_ZEROES, which must have exactly one range; `None` if the range is invalid.
fn parse_range(
    memory: &GuestMemory,
    readable: &Segments,
    kind: u32,
    capacity: u64,
) -> Result<Option<Operation>, RingError> {
    if readable.len() != HEADER + RANGE {
        return Ok(None);
    }
    let mut bytes = [0; RANGE as usize];
    readable.read(memory, HEADER, &mut bytes)?;
    // struct virtio_blk_discard_write_zeroes: sector le64, num_sectors le32, flags le32.
    let (sector, count, flags) = (u64_at(&bytes, 0), u32_at(&bytes, 8), u32_at(&bytes, 12));
    let len = u64::from(count) * SECTOR;
    let Some(offset) = sector.checked_mul(SECTOR) else {
        return Ok(None);
    };
    if len == 0 || offset.checked_add(len).is_none_or(|end| end > capacity) {
        return Ok(None);
    }
    // virtio 5.2.6.2: only WRITE_ZEROES may set unmap (bit 0); a device must refuse unknown bits.
    let zeroes = kind == virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;
    Ok(Some(match (zeroes, flags) {
        (true, 0 | 1) => Operation::WriteZeroes { offset, len },
        (false, 0) => Operation::Discard { offset, len },
        _ => Operation::Unknown,
    }))
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    (0..4).fold(0, |value, n| value | u32::from(bytes[at + n]) << (8 * n))
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Reads a chain. Returns the bytes that the device may read, and the bytes that it may write.
fn read_chain(
    memory: &GuestMemory,
    mut table: GuestAddress,
    queue_size: u16,
    head: Head,
) -> Result<(Segments, Segments), RingError> {
    let (mut readable, mut writable) = (Segments::default(), Segments::default());
    let mut entries = u32::from(queue_size);
    let mut next = u32::from(head.0);
    let mut indirect = false;
    for _ in 0..MAX_CHAIN {
        if next >= entries {
            return Err(RingError::Index);
        }
        let at = table.checked_add(u64::from(next) * DESCRIPTOR).ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let descriptor: Descriptor = memory.read_obj(at)?;
        if descriptor.refers_to_indirect_table() {
            // virtio 2.7.5.3.1: no nesting, no NEXT beside it.
            let bad_len = descriptor.len() == 0 || !u64::from(descriptor.len()).is_multiple_of(DESCRIPTOR);
            if indirect || bad_len || descriptor.has_next() {
                return Err(RingError::Indirect);
            }
            indirect = true;
            table = descriptor.addr();
            entries = descriptor.len() / DESCRIPTOR as u32;
            next = 0;
            continue;
        }
        if !memory.check_range(descriptor.addr(), descriptor.len() as usize, Permissions::ReadWrite) {
            return Err(RingError::Outside);
        }
        if descriptor.is_write_only() {
            writable.push(descriptor.addr(), descriptor.len());
        } else if writable.len() > 0 {
            return Err(RingError::Order);
        } else {
            readable.push(descriptor.addr(), descriptor.len());
        }
        if !descriptor.has_next() {
            return Ok((readable, writable));
        }
        next = u32::from(descriptor.next());
    }
    Err(RingError::Loop)
}

/// Size of a descriptor in bytes (virtio 2.7.5).
const DESCRIPTOR: u64 = 16;
