//! [`Vring`]: one virtqueue of the device (virtio 2.7).

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::vhost_user::engine::FinishedRequest;
use crate::vhost_user::inflight::{Head, InflightQueue, InflightRegion, QueueIndex, Recovered};
use crate::vhost_user::memory::GuestMemory;
use crate::vhost_user::request::{GuestRequest, RingError, parse};

/// Largest number of descriptors of a queue that the device accepts.
pub(crate) const MAX_QUEUE: u16 = 1024;

/// One virtqueue. It is started when QEMU sends its kick descriptor, and stopped by `VHOST_USER_GET_VRING_BASE`
/// (vhost-user, "Ring states").
pub(crate) struct Vring {
    index: u16,
    /// Size, addresses and positions of the three parts: descriptor table, available ring, used ring.
    pub queue: Queue,
    /// Eventfd by which the driver announces requests.
    pub kick: Option<File>,
    /// Eventfd that interrupts the driver.
    pub call: Option<File>,
    /// Eventfd that tells QEMU that the ring is broken.
    pub err: Option<File>,
    /// Whether requests may be taken from the ring (`VHOST_USER_SET_VRING_ENABLE`).
    pub enabled: bool,
    /// The ring is being stopped: requests in flight are answered, and no new one is taken.
    pub draining: bool,
    /// Number of the run, which lasts from the start to the stop of the ring; `None` while it is stopped.
    run: Option<u64>,
    /// By head: whether the chain was taken and not answered.
    taken: Vec<bool>,
    /// Number of chains taken and not answered.
    in_flight: u16,
    /// `None` if QEMU does not track requests in flight.
    tracking: Option<InflightQueue>,
}

impl Vring {
    /// A stopped ring without size and addresses.
    pub fn new(index: u16) -> Self {
        Self {
            index,
            queue: Queue::new(MAX_QUEUE).expect("the largest size is a power of two"),
            kick: None,
            call: None,
            err: None,
            enabled: false,
            draining: false,
            run: None,
            taken: Vec::new(),
            in_flight: 0,
            tracking: None,
        }
    }

    /// The number of the ring's run; `None` while the ring is stopped.
    pub fn run_number(&self) -> Option<u64> {
        self.run
    }

    /// Number of requests taken and not answered.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether new requests may be taken from the ring.
    pub fn is_open(&self) -> bool {
        self.run.is_some() && self.enabled && !self.draining
    }

    /// Starts the ring. `run` is the number of its run. Returns the heads of the requests in flight, the oldest first.
    pub fn start(
        &mut self,
        memory: &GuestMemory,
        region: Option<&InflightRegion>,
        run: u64,
    ) -> Result<Vec<u16>, RingError> {
        self.queue.set_ready(true);
        // Address 0 means that QEMU has sent no addresses.
        if self.queue.avail_ring() == 0 || !self.queue.is_valid(memory) {
            self.queue.set_ready(false);
            return Err(RingError::NotConfigured);
        }
        let used_idx = self.queue.used_idx(memory, Ordering::Acquire)?.0;
        self.queue.set_next_used(used_idx);
        self.tracking = region.and_then(|region| region.queue(QueueIndex(self.index), self.queue.size()));
        let pending = match self.tracking.as_mut().map(|tracking| tracking.recover(used_idx)) {
            Some(Recovered::Pending(heads)) => {
                // Each head that was taken is answered or pending. So the next one follows from both numbers, even if
                // QEMU gives another base.
                self.queue.set_next_avail(used_idx.wrapping_add(heads.len() as u16));
                heads
            }
            Some(Recovered::Fresh) | None => Vec::new(),
        };
        self.taken = vec![false; usize::from(self.queue.size())];
        self.in_flight = 0;
        self.draining = false;
        self.run = Some(run);
        Ok(pending)
    }

    /// Stops the ring; returns the number of the run that has ended.
    pub fn stop(&mut self) -> Option<u64> {
        self.draining = false;
        self.tracking = None;
        self.in_flight = 0;
        self.queue.set_ready(false);
        self.run.take()
    }

    /// Resets the eventfd of the driver's notifications.
    pub fn clear_kick(&self) {
        if let Some(mut kick) = self.kick.as_ref() {
            let _ = kick.read(&mut [0; 8]);
        }
    }

    /// Takes the next request from the available ring, with the head of its chain; `None` if there is none.
    pub fn take_next(&mut self, memory: &GuestMemory, capacity: u64) -> Result<Option<(u16, GuestRequest)>, RingError> {
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
        let request = self.take_chain(memory, head, capacity)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        if let Some(tracking) = &mut self.tracking {
            tracking.begin(Head(head));
        }
        Ok(Some((head, request)))
    }

    /// Reads the request whose chain starts at `head`, and counts it as in flight. Called for new requests and for
    /// those that were in flight when the ring was started.
    pub fn take_chain(&mut self, memory: &GuestMemory, head: u16, capacity: u64) -> Result<GuestRequest, RingError> {
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

    /// Answers a request: writes its status and puts its head into the used ring.
    pub fn answer(&mut self, memory: &GuestMemory, finished: &FinishedRequest) -> Result<(), RingError> {
        let head = finished.chain.head;
        let (status, address) = finished.status;
        memory.write_obj(status, address)?;
        if let Some(tracking) = &self.tracking {
            tracking.before_used(Head(head));
        }
        self.queue.add_used(memory, head, finished.written)?;
        if let Some(tracking) = &self.tracking {
            tracking.after_used(Head(head), self.queue.next_used());
        }
        self.taken[usize::from(head)] = false;
        self.in_flight -= 1;
        Ok(())
    }

    /// Interrupts the driver if it has asked to be notified of the last answers.
    pub fn notify(&mut self, memory: &GuestMemory) -> Result<(), RingError> {
        if self.queue.needs_notification(memory)? {
            self.signal();
        }
        Ok(())
    }

    /// Interrupts the driver in any case.
    pub fn signal(&self) {
        signal(self.call.as_ref());
    }

    /// Tells QEMU that the ring is broken.
    pub fn signal_error(&self) {
        signal(self.err.as_ref());
    }
}

/// Signals an eventfd, if there is one.
fn signal(to: Option<&File>) {
    if let Some(mut file) = to {
        // A full counter means that the signal is pending; another error means that the connection is about to end.
        let _ = file.write(&1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::engine::ChainId;

    const USED_RING: u64 = 0x2000;

    /// The driver reads the status as soon as it sees the index. The status address fails here, so whatever comes after the
    /// status in the order of writes is not done.
    #[test]
    fn the_used_ring_moves_only_after_the_status_is_written() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let mut vring = Vring::new(0);
        vring.queue.set_size(16);
        vring.queue.try_set_desc_table_address(GuestAddress(0)).unwrap();
        vring.queue.try_set_avail_ring_address(GuestAddress(0x1000)).unwrap();
        vring.queue.try_set_used_ring_address(GuestAddress(USED_RING)).unwrap();
        vring.start(&memory, None, 1).unwrap();
        // struct virtq_used: flags, idx, ring (virtio 2.7.8).
        let used_idx = || memory.read_obj::<u16>(GuestAddress(USED_RING + 2)).unwrap();
        let chain = ChainId { ring: 0, head: 3, run: 1 };
        for (address, answered) in [(0x4000, false), (0x3000, true)] {
            vring.in_flight = 1;
            let finished = FinishedRequest { chain, status: (7, GuestAddress(address)), written: 1 };
            assert_eq!(vring.answer(&memory, &finished).is_ok(), answered);
            assert_eq!(used_idx() == 1, answered);
        }
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x3000)).unwrap(), 7);
    }
}
