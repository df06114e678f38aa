//! One virtqueue of the device (virtio 2.7), from its configuration to its used ring.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::vhost_user::engine::Finished;
use crate::vhost_user::inflight::{Head, InflightQueue, InflightRegion, QueueIndex, Recovered};
use crate::vhost_user::memory::GuestMemory;
use crate::vhost_user::request::{GuestRequest, RingError, parse};

/// Largest number of descriptors of a queue that we accept.
pub(crate) const MAX_QUEUE: u16 = 1024;

/// One ring. It is started by its kick descriptor and stopped by `VHOST_USER_GET_VRING_BASE`
/// (vhost-user, "Ring states").
pub(crate) struct Vring {
    index: u16,
    /// Sizes, addresses and positions.
    pub queue: Queue,
    /// Notification from the driver.
    pub kick: Option<File>,
    /// Notification to the driver.
    pub call: Option<File>,
    /// Tells QEMU that the ring is broken.
    pub err: Option<File>,
    /// QEMU wants the ring served (`VHOST_USER_SET_VRING_ENABLE`).
    pub enabled: bool,
    /// The ring is being stopped: answers go out, nothing comes in.
    pub draining: bool,
    epoch: Option<u64>,
    /// By head: whether the chain was taken and not answered.
    taken: Vec<bool>,
    in_flight: u16,
    inflight: Option<InflightQueue>,
}

impl Vring {
    /// A ring without configuration.
    pub fn new(index: u16) -> Self {
        Self {
            index,
            queue: Queue::new(MAX_QUEUE).expect("the largest size is a power of two"),
            kick: None,
            call: None,
            err: None,
            enabled: false,
            draining: false,
            epoch: None,
            taken: Vec::new(),
            in_flight: 0,
            inflight: None,
        }
    }

    /// The run this ring is in, while it is started.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Requests taken and not answered.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// True if requests may be taken from it.
    pub fn is_open(&self) -> bool {
        self.epoch.is_some() && self.enabled && !self.draining
    }

    /// Start run `epoch`. Returns the heads that were in flight before, oldest first.
    pub fn start(
        &mut self,
        memory: &GuestMemory,
        region: Option<&InflightRegion>,
        epoch: u64,
    ) -> Result<Vec<u16>, RingError> {
        self.queue.set_ready(true);
        // A queue that was never configured has address 0.
        if self.queue.avail_ring() == 0 || !self.queue.is_valid(memory) {
            self.queue.set_ready(false);
            return Err(RingError::NotConfigured);
        }
        let used_idx = self.queue.used_idx(memory, Ordering::Acquire)?.0;
        self.queue.set_next_used(used_idx);
        self.inflight = region.and_then(|region| region.queue(QueueIndex(self.index), self.queue.size()));
        let pending = match self.inflight.as_mut().map(|inflight| inflight.recover(used_idx)) {
            Some(Recovered::Pending(heads)) => {
                // Every taken head is either answered or pending, whatever base QEMU remembers.
                self.queue.set_next_avail(used_idx.wrapping_add(heads.len() as u16));
                heads
            }
            Some(Recovered::Fresh) | None => Vec::new(),
        };
        self.taken = vec![false; usize::from(self.queue.size())];
        self.in_flight = 0;
        self.draining = false;
        self.epoch = Some(epoch);
        Ok(pending)
    }

    /// Stop. Returns the run that ended.
    pub fn stop(&mut self) -> Option<u64> {
        self.draining = false;
        self.inflight = None;
        self.in_flight = 0;
        self.queue.set_ready(false);
        self.epoch.take()
    }

    /// Clears the driver's notification.
    pub fn clear_kick(&self) {
        if let Some(mut kick) = self.kick.as_ref() {
            let _ = kick.read(&mut [0; 8]);
        }
    }

    /// Take the next request from the available ring.
    pub fn pop(&mut self, memory: &GuestMemory, capacity: u64) -> Result<Option<(u16, GuestRequest)>, RingError> {
        let (next, size) = (self.queue.next_avail(), self.queue.size());
        let available = self.queue.avail_idx(memory, Ordering::Acquire)?.0.wrapping_sub(next);
        if available == 0 {
            return Ok(None);
        }
        if available > size {
            return Err(RingError::Available);
        }
        // struct virtq_avail: flags, idx, ring (virtio 2.7.6).
        let at = self.queue.avail_ring().checked_add(4 + 2 * u64::from(next % size));
        let at = at.ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let head: u16 = memory.load(GuestAddress(at), Ordering::Relaxed)?;
        let head = u16::from_le(head);
        let request = self.take(memory, head, capacity)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        if let Some(inflight) = &mut self.inflight {
            inflight.begin(Head(head));
        }
        Ok(Some((head, request)))
    }

    /// Take a request that was in flight already.
    pub fn take(&mut self, memory: &GuestMemory, head: u16, capacity: u64) -> Result<GuestRequest, RingError> {
        match self.taken.get(usize::from(head)) {
            None => return Err(RingError::Index),
            Some(true) => return Err(RingError::Twice),
            Some(false) => {}
        }
        let table = GuestAddress(self.queue.desc_table());
        let request = parse(memory, table, self.queue.size(), Head(head), capacity)?;
        self.taken[usize::from(head)] = true;
        self.in_flight += 1;
        Ok(request)
    }

    /// Writes the status of a request and puts it into the used ring.
    pub fn answer(&mut self, memory: &GuestMemory, finished: &Finished) -> Result<(), RingError> {
        let head = finished.token.head;
        let (status, address) = finished.status;
        memory.write_obj(status, address)?;
        if let Some(inflight) = &self.inflight {
            inflight.before_used(Head(head));
        }
        self.queue.add_used(memory, head, finished.written)?;
        if let Some(inflight) = &self.inflight {
            inflight.after_used(Head(head), self.queue.next_used());
        }
        self.taken[usize::from(head)] = false;
        self.in_flight -= 1;
        Ok(())
    }

    /// Interrupt the driver if it wants that now.
    pub fn notify(&mut self, memory: &GuestMemory) -> Result<(), RingError> {
        if self.queue.needs_notification(memory)? {
            self.signal();
        }
        Ok(())
    }

    /// Interrupt the driver in any case.
    pub fn signal(&self) {
        signal(self.call.as_ref());
    }

    /// Tell QEMU that the ring is broken.
    pub fn signal_error(&self) {
        signal(self.err.as_ref());
    }
}

fn signal(to: Option<&File>) {
    if let Some(mut file) = to {
        // A full counter means that the signal is pending; another error means that the connection is about to end.
        let _ = file.write(&1u64.to_ne_bytes());
    }
}
