//! In-flight tracking: records in shared memory which requests are in flight, so that this process submits them again
//! after a restart (vhost-user, "Inflight I/O tracking").
//!
//! The device makes the shared memory; QEMU keeps it and passes it back when it connects again. Each queue has a part
//! that starts at a multiple of 64 bytes, little-endian ("QueueRegionSplit" of the specification, format version 1):
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | features, unused, 0 |
//! | 8 | 2 | version: 1, or 0 for a queue that was never started |
//! | 10 | 2 | desc_num: size of the queue |
//! | 12 | 2 | last_batch_head: head of the list of the last batch of used descriptors |
//! | 14 | 2 | used_idx: index of the used ring after the last finished batch |
//! | 16 + 16·i | 1 | desc\[i\].inflight: 1 while the chain that starts at i is in flight |
//! | 22 + 16·i | 2 | desc\[i\].next: next in the list of the last batch |
//! | 24 + 16·i | 8 | desc\[i\].counter: order of arrival |
//!
//! QEMU may write anything here at any time. So this module trusts nothing that it reads here: it checks indices and
//! limits the number of steps of its loops.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use crate::vhost_user::shared_memory::{MapError, check_sealed};

/// Version of the format.
const VERSION: u16 = 1;
/// Bytes before the first `desc`.
const HEADER: usize = 16;
/// Bytes of one `desc`: the state of one descriptor.
const DESCRIPTOR_STATE: usize = 16;
/// The part of a queue starts at a multiple of this, so that queues use separate cache lines.
const ALIGN: usize = 64;

/// Bytes of the part of one queue.
fn queue_bytes(queue_size: u16) -> usize {
    (HEADER + DESCRIPTOR_STATE * usize::from(queue_size)).next_multiple_of(ALIGN)
}

/// The reason why the shared memory for in-flight tracking cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflightError {
    #[error("the memory for in-flight requests could not be made")]
    Create(#[from] rustix::io::Errno),
    #[error("the memory for in-flight requests could not be mapped")]
    Map(#[from] MapError),
    #[error("the memory for in-flight requests is smaller than its queues need")]
    TooSmall,
}

/// Number of a queue of the device, from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueIndex(pub u16);

/// Index of the first descriptor of a chain in the descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Head(pub u16);

/// Number and size of the queues of one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLayout {
    pub queues: u16,
    /// Descriptors of each queue.
    pub queue_size: u16,
}

impl QueueLayout {
    /// Bytes of the parts of all queues.
    fn bytes(self) -> u64 {
        queue_bytes(self.queue_size) as u64 * u64::from(self.queues)
    }
}

/// The shared memory for in-flight tracking of all queues of one device.
pub(crate) struct InflightRegion {
    map: Arc<MmapRegion>,
    layout: QueueLayout,
}

impl InflightRegion {
    /// Creates memory for a device (`VHOST_USER_GET_INFLIGHT_FD`). It is all zeros, which means that no queue was
    /// started.
    pub fn create(layout: QueueLayout) -> Result<(VhostUserInflight, File), InflightError> {
        let size = layout.bytes();
        let fd = memfd_create("dyad-inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, size)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((VhostUserInflight::new(size, 0, layout.queues, layout.queue_size), File::from(fd)))
    }

    /// Maps memory that QEMU has kept (`VHOST_USER_SET_INFLIGHT_FD`).
    pub fn open(message: &VhostUserInflight, file: File) -> Result<Self, InflightError> {
        let layout = QueueLayout { queues: message.num_queues, queue_size: message.queue_size };
        let needed = layout.bytes();
        if message.mmap_size < needed {
            return Err(InflightError::TooSmall);
        }
        check_sealed(&file, message.mmap_offset..message.mmap_offset.saturating_add(needed))?;
        let size = usize::try_from(needed).map_err(|_| MapError::TooLarge)?;
        let offset = FileOffset::new(file, message.mmap_offset);
        let map = MmapRegion::from_file(offset, size).map_err(MapError::from)?;
        Ok(Self { map: Arc::new(map), layout })
    }

    /// The part of one queue; `None` if the memory has no part for this queue with `size` descriptors.
    pub fn queue(&self, QueueIndex(index): QueueIndex, size: u16) -> Option<InflightQueue> {
        (index < self.layout.queues && size <= self.layout.queue_size).then(|| InflightQueue {
            map: self.map.clone(),
            base: queue_bytes(self.layout.queue_size) * usize::from(index),
            size,
            counter: 0,
        })
    }
}

/// The state in which a queue's part is found when the queue is started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// The queue was not started before with this memory.
    Fresh,
    /// Heads of the requests that were taken and not answered, in the order in which they were taken.
    Pending(Vec<u16>),
}

/// The in-flight tracking of one queue.
pub(crate) struct InflightQueue {
    map: Arc<MmapRegion>,
    /// Offset of the queue's part.
    base: usize,
    /// Number of descriptors of the queue.
    size: u16,
    /// Value of `desc[i].counter` for the next request.
    counter: u64,
}

impl InflightQueue {
    /// Repairs the part after a process that was killed, and returns the requests in flight. `used_idx` is the present
    /// index of the used ring.
    pub fn recover(&mut self, used_idx: u16) -> Recovered {
        let fresh = self.load(8) == 0;
        if fresh {
            (0..self.size).for_each(|head| self.set_inflight(head, false));
        } else {
            // The process was killed after it moved the used ring and before it recorded that: the last heads are
            // answered.
            let mut head = self.load(12);
            for _ in 0..used_idx.wrapping_sub(self.load(14)).min(self.size) {
                if head >= self.size {
                    break;
                }
                self.set_inflight(head, false);
                head = self.load(self.descriptor_state(head) + 6);
            }
        }
        self.store(14, used_idx);
        self.store(10, self.size);
        self.store(8, VERSION);
        if fresh {
            return Recovered::Fresh;
        }
        let mut pending: Vec<(u64, u16)> =
            (0..self.size).filter(|head| self.is_inflight(*head)).map(|head| (self.counter_of(head), head)).collect();
        pending.sort_unstable();
        self.counter = pending.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Recovered::Pending(pending.into_iter().map(|(_, head)| head).collect())
    }

    /// Records that `head` was taken from the available ring.
    pub fn begin(&mut self, Head(head): Head) {
        let counter = self.counter;
        self.counter = counter.wrapping_add(1);
        let memory = self.map.as_volatile_slice();
        // The memory was mapped with room for the states of all descriptors, so this access cannot fail.
        let _ = memory.store(counter.to_le(), self.base + self.descriptor_state(head) + 8, Ordering::Release);
        self.set_inflight(head, true);
    }

    /// Records that `head` is about to be put into the used ring.
    pub fn before_used(&self, Head(head): Head) {
        self.store(self.descriptor_state(head) + 6, self.load(12));
        self.store(12, head);
    }

    /// Records that `head` is in the used ring, whose index is now `used_idx`.
    pub fn after_used(&self, Head(head): Head, used_idx: u16) {
        self.set_inflight(head, false);
        self.store(14, used_idx);
    }

    /// Offset of the state of the descriptor `head` in the part of its queue.
    fn descriptor_state(&self, head: u16) -> usize {
        debug_assert!(head < self.size);
        HEADER + DESCRIPTOR_STATE * usize::from(head)
    }

    fn counter_of(&self, head: u16) -> u64 {
        let at = self.base + self.descriptor_state(head) + 8;
        let value = self.map.as_volatile_slice().load(at, Ordering::Acquire);
        u64::from_le(value.unwrap_or(0))
    }

    fn is_inflight(&self, head: u16) -> bool {
        let at = self.base + self.descriptor_state(head);
        let value = self.map.as_volatile_slice().load::<u8>(at, Ordering::Acquire);
        value.unwrap_or(0) != 0
    }

    fn set_inflight(&self, head: u16, inflight: bool) {
        let at = self.base + self.descriptor_state(head);
        let _ = self.map.as_volatile_slice().store(u8::from(inflight), at, Ordering::Release);
    }

    /// Reads a field at an offset in the queue's part.
    fn load(&self, at: usize) -> u16 {
        let value = self.map.as_volatile_slice().load(self.base + at, Ordering::Acquire);
        u16::from_le(value.unwrap_or(0))
    }

    /// Writes a field at an offset in the queue's part.
    fn store(&self, at: usize, value: u16) {
        let _ = self.map.as_volatile_slice().store(value.to_le(), self.base + at, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(queues: u16, queue_size: u16) -> (VhostUserInflight, File) {
        InflightRegion::create(QueueLayout { queues, queue_size }).unwrap()
    }

    fn open(message: &VhostUserInflight, file: &File, index: u16) -> InflightQueue {
        let region = InflightRegion::open(message, file.try_clone().unwrap()).unwrap();
        region.queue(QueueIndex(index), message.queue_size).unwrap()
    }

    #[test]
    fn taken_heads_come_back_in_order_of_arrival() {
        let (message, file) = region(2, 8);
        let mut queue = open(&message, &file, 1);
        assert_eq!(queue.recover(0), Recovered::Fresh);
        [5, 2, 7].into_iter().for_each(|head| queue.begin(Head(head)));
        queue.before_used(Head(2));
        queue.after_used(Head(2), 1);
        let mut again = open(&message, &file, 1);
        assert_eq!(again.recover(1), Recovered::Pending(vec![5, 7]));
        again.begin(Head(0));
        assert_eq!(open(&message, &file, 1).recover(1), Recovered::Pending(vec![5, 7, 0]));
        assert_eq!(open(&message, &file, 0).recover(0), Recovered::Fresh);
    }

    #[test]
    fn a_kill_between_used_ring_and_record_answers_no_request_twice() {
        let (message, file) = region(1, 8);
        let mut queue = open(&message, &file, 0);
        queue.recover(0);
        queue.begin(Head(3));
        queue.begin(Head(4));
        queue.before_used(Head(4));
        // The used ring's index became 1; then the process was killed before `after_used`.
        assert_eq!(open(&message, &file, 0).recover(1), Recovered::Pending(vec![3]));
    }

    #[test]
    fn a_kill_before_the_used_ring_moved_leaves_the_request_in_flight() {
        let (message, file) = region(1, 8);
        let mut queue = open(&message, &file, 0);
        queue.recover(0);
        queue.begin(Head(3));
        queue.before_used(Head(3));
        assert_eq!(open(&message, &file, 0).recover(0), Recovered::Pending(vec![3]));
    }

    #[test]
    fn memory_that_is_too_small_is_refused() {
        let (mut message, file) = region(1, 8);
        message.queue_size = 16;
        let refused = InflightRegion::open(&message, file.try_clone().unwrap());
        assert!(matches!(refused.err(), Some(InflightError::TooSmall)));
        message.mmap_size = 1 << 20;
        message.queue_size = 1024;
        let refused = InflightRegion::open(&message, file);
        assert!(matches!(refused.err(), Some(InflightError::Map(MapError::TooShort))));
    }

    proptest! {
        #[test]
        fn random_bytes_give_no_panic_and_only_distinct_valid_heads(
            bytes in prop::collection::vec(any::<u8>(), 192),
            used in any::<u16>(),
        ) {
            let (message, file) = region(1, 8);
            let map = MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), 192).unwrap();
            map.as_volatile_slice().write_slice(&bytes[..192], 0).unwrap();
            if let Recovered::Pending(heads) = open(&message, &file, 0).recover(used) {
                let distinct: std::collections::BTreeSet<_> = heads.iter().collect();
                prop_assert_eq!(distinct.len(), heads.len());
                prop_assert!(heads.iter().all(|head| *head < 8));
            }
        }
    }
}
