//! The state of one device, owned by its thread: what QEMU negotiated, the rings, the engine.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use vhost::vhost_user::VhostUserVirtioFeatures;
use virtio_bindings::bindings::{virtio_blk, virtio_ring};
use virtio_queue::QueueT;

use crate::Backend;
use crate::vhost_user::config::Config;
use crate::vhost_user::config_space;
use crate::vhost_user::dirty_log::DirtyLog;
use crate::vhost_user::engine::{Engine, SERIAL, Token};
use crate::vhost_user::inflight::InflightRegion;
use crate::vhost_user::memory::{GuestMemory, MemoryTable};
use crate::vhost_user::request::{GuestRequest, RingError};
use crate::vhost_user::shared::Shared;
use crate::vhost_user::vring::Vring;

/// Number that an epoll event of ring 0's kick carries; ring n has `KICK + n`.
pub(crate) const KICK: u64 = 16;

pub(crate) struct Device {
    pub(crate) capacity: u64,
    pub(crate) read_only: bool,
    drain_limit: Duration,
    epoll: Arc<OwnedFd>,
    shared: Arc<Shared>,
    engine: Engine,
    next_epoch: u64,
    /// A ring has requests that were not taken because the engine was full.
    stalled: bool,

    // The fields below belong to the connection.
    pub(crate) features: u64,
    pub(crate) log: Arc<DirtyLog>,
    pub(crate) memory: Option<MemoryTable>,
    pub(crate) inflight: Option<InflightRegion>,
    pub(crate) rings: Vec<Vring>,
}

impl Device {
    pub fn new(backend: Arc<dyn Backend>, config: &Config, epoll: Arc<OwnedFd>, shared: Arc<Shared>) -> Self {
        let mut serial = [0; SERIAL];
        let len = config.serial.len().min(SERIAL);
        serial[..len].copy_from_slice(&config.serial.as_bytes()[..len]);
        Self {
            capacity: backend.size(),
            read_only: config.read_only,
            drain_limit: config.drain_limit,
            epoll,
            engine: Engine::new(backend, shared.mailbox.clone(), serial, config.memory_limit),
            shared,
            next_epoch: 0,
            stalled: false,
            features: 0,
            log: Arc::default(),
            memory: None,
            inflight: None,
            rings: (0..config.queues).map(Vring::new).collect(),
        }
    }

    /// The features this device offers.
    pub fn offered(&self) -> u64 {
        config_space::features(self.read_only)
    }

    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// True if rings wait for `VHOST_USER_SET_VRING_ENABLE` (vhost-user, "Ring states").
    pub fn rings_are_enabled_one_by_one(&self) -> bool {
        self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
    }

    fn guest(&self) -> Result<Arc<GuestMemory>, RingError> {
        let table = self.memory.as_ref().ok_or(RingError::NotConfigured)?;
        Ok(table.guest.clone())
    }

    /// Starts a ring whose kick descriptor has just arrived, and serves the requests in it.
    pub fn start_ring(&mut self, index: usize) -> Result<(), RingError> {
        let memory = self.guest()?;
        let event_idx = self.has(virtio_ring::VIRTIO_RING_F_EVENT_IDX);
        let whole = !self.rings_are_enabled_one_by_one();
        let ring = &mut self.rings[index];
        let kick = ring.kick.as_ref().ok_or(RingError::NotConfigured)?;
        epoll_add(&self.epoll, kick, KICK + index as u64).map_err(|_| RingError::NotConfigured)?;
        if ring.epoch().is_some() {
            return Ok(()); // only the descriptor was replaced
        }
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        ring.queue.set_event_idx(event_idx);
        ring.enabled |= whole;
        let pending = ring.start(&memory, self.inflight.as_ref(), epoch)?;
        self.engine.begin(epoch);
        if !pending.is_empty() {
            tracing::info!(ring = index, requests = pending.len(), "submitting the requests in flight again");
        }
        for head in pending {
            let request = self.rings[index].take(&memory, head, self.capacity)?;
            self.submit(index, head, request, &memory);
        }
        // The previous run may have put an answer into the used ring without a notification.
        self.rings[index].signal();
        self.serve_ring(index)
    }

    /// Stops a ring. Completions that arrive later are dropped.
    pub fn stop_ring(&mut self, index: usize) {
        self.forget_kick(index);
        if let Some(epoch) = self.rings[index].stop() {
            self.engine.revoke(epoch);
        }
    }

    /// Stop watching a ring's kick descriptor.
    pub fn forget_kick(&mut self, index: usize) {
        if let Some(kick) = self.rings[index].kick.take() {
            // Not registered if the ring could not be started: nothing to take away then.
            let _ = epoll::delete(&*self.epoll, &kick);
        }
    }

    /// Wait until a ring has no request in flight, within the limit, then stop it.
    /// Returns the next position in its available ring.
    pub fn drain_ring(&mut self, index: usize) -> Result<u16, RingError> {
        let deadline = Instant::now() + self.drain_limit;
        self.rings[index].draining = true;
        // The thread that stops the device may be the thread that would answer the requests, so a stop ends the wait.
        while self.rings[index].in_flight() > 0 && !self.shared.stop.load(Ordering::SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The remaining requests are marked in the in-flight memory and will be submitted again, unless QEMU
                // resets the ring.
                tracing::warn!(
                    ring = index,
                    requests = self.rings[index].in_flight(),
                    "a ring was stopped with requests in flight: the volume did not answer in time"
                );
                break;
            }
            self.shared.mailbox.wait(left);
            self.settle()?;
        }
        let base = self.rings[index].queue.next_avail();
        self.stop_ring(index);
        Ok(base)
    }

    /// The driver announced requests.
    pub fn kicked(&mut self, index: usize) -> Result<(), RingError> {
        self.rings[index].clear_kick();
        self.serve_ring(index)
    }

    /// Takes the completions of the backend, answers the driver, and continues with rings that had to wait.
    pub fn settle(&mut self) -> Result<(), RingError> {
        for completion in self.shared.mailbox.take() {
            self.engine.complete(completion);
        }
        self.answer()?;
        if std::mem::take(&mut self.stalled) {
            for index in 0..self.rings.len() {
                self.serve_ring(index)?;
            }
        }
        Ok(())
    }

    /// Take requests from a ring until it is empty or the engine is full.
    pub fn serve_ring(&mut self, index: usize) -> Result<(), RingError> {
        if !self.rings[index].is_open() {
            return Ok(());
        }
        if self.engine.has_dead() {
            self.stalled = true;
            return Ok(());
        }
        let memory = self.guest()?;
        loop {
            self.rings[index].queue.disable_notification(&*memory)?;
            loop {
                if self.engine.is_full() {
                    self.stalled = true;
                    return self.answer();
                }
                let ring = &mut self.rings[index];
                let Some((head, request)) = ring.pop(&memory, self.capacity)? else {
                    break;
                };
                self.submit(index, head, request, &memory);
            }
            if !self.rings[index].queue.enable_notification(&*memory)? {
                break;
            }
        }
        self.answer()
    }

    fn submit(&mut self, index: usize, head: u16, mut request: GuestRequest, memory: &Arc<GuestMemory>) {
        let epoch = self.rings[index].epoch().expect("only a started ring has requests");
        if self.read_only {
            request.refuse_changes();
        }
        let token = Token { ring: index as u16, head, epoch };
        // virtio 5.2.5: without FLUSH the driver relies on every write being durable.
        let flush_after = !self.has(virtio_blk::VIRTIO_BLK_F_FLUSH);
        self.engine.submit(token, request, memory, flush_after);
    }

    /// Give finished requests back to the driver.
    fn answer(&mut self) -> Result<(), RingError> {
        let finished = self.engine.take_finished();
        if finished.is_empty() {
            return Ok(());
        }
        let memory = self.guest()?;
        let mut touched = vec![false; self.rings.len()];
        for done in &finished {
            let ring = usize::from(done.token.ring);
            if self.rings[ring].epoch() == Some(done.token.epoch) {
                self.rings[ring].answer(&memory, done)?;
                touched[ring] = true;
            }
        }
        self.shared.counters.add_served(finished.len() as u64);
        for (index, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            self.rings[index].notify(&memory)?;
        }
        Ok(())
    }

    /// Stop all rings and forget their configuration (`VHOST_USER_RESET_DEVICE`).
    pub fn reset_rings(&mut self) {
        for index in 0..self.rings.len() {
            self.stop_ring(index);
            self.rings[index] = Vring::new(index as u16);
        }
        self.stalled = false;
    }

    /// Resets all state of the connection.
    pub fn disconnect(&mut self) {
        self.reset_rings();
        self.features = 0;
        self.log.clear();
        self.memory = None;
        self.inflight = None;
    }

    /// Requests taken from the guest and not answered.
    pub fn in_flight(&self) -> u64 {
        self.rings.iter().map(|ring| u64::from(ring.in_flight())).sum()
    }
}

/// Watch `fd` for input; its events carry `data`.
pub(crate) fn epoll_add(epoll: &OwnedFd, fd: impl std::os::fd::AsFd, data: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
}
