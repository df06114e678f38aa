//! [`Device`]: the state of one device, which only its thread uses: negotiated features, rings, engine.

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
use crate::vhost_user::engine::{ChainId, Engine, SERIAL};
use crate::vhost_user::inflight::InflightRegion;
use crate::vhost_user::memory::{GuestMemory, MemoryTable};
use crate::vhost_user::request::{GuestRequest, RingError};
use crate::vhost_user::shared::Shared;
use crate::vhost_user::vring::Vring;

/// Data of the epoll events of ring 0's kick descriptor; ring n has `KICK + n`.
pub(crate) const KICK: u64 = 16;

/// One device. It outlives connections of QEMU.
pub(crate) struct Device {
    /// Size of the volume in bytes.
    pub(crate) capacity: u64,
    pub(crate) read_only: bool,
    drain_limit: Duration,
    epoll: Arc<OwnedFd>,
    shared: Arc<Shared>,
    engine: Engine,
    /// Number for the next start of a ring.
    next_run: u64,
    /// A ring may have requests that were not taken, because the engine was full or had dead jobs.
    stalled: bool,

    // The fields below belong to the connection: [`Device::disconnect`] resets them.
    /// The feature bits that driver and QEMU accepted.
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
            next_run: 0,
            stalled: false,
            features: 0,
            log: Arc::default(),
            memory: None,
            inflight: None,
            rings: (0..config.queues).map(Vring::new).collect(),
        }
    }

    /// The feature bits that this device offers.
    pub fn offered(&self) -> u64 {
        config_space::features(self.read_only)
    }

    /// Whether the driver accepted a feature, given as its bit number.
    fn has_feature(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// Whether each ring is served only after `VHOST_USER_SET_VRING_ENABLE` (vhost-user, "Ring states"). If not, a ring
    /// is enabled when it is started.
    pub fn rings_are_enabled_one_by_one(&self) -> bool {
        self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
    }

    /// The guest's memory; an error if QEMU has not shared it yet.
    fn guest_memory(&self) -> Result<Arc<GuestMemory>, RingError> {
        let table = self.memory.as_ref().ok_or(RingError::NotConfigured)?;
        Ok(table.guest.clone())
    }

    /// Starts a ring whose kick descriptor QEMU has just sent. Submits the requests in flight again, then serves new
    /// ones.
    pub fn start_ring(&mut self, index: usize) -> Result<(), RingError> {
        let memory = self.guest_memory()?;
        let event_idx = self.has_feature(virtio_ring::VIRTIO_RING_F_EVENT_IDX);
        let enable = !self.rings_are_enabled_one_by_one();
        let ring = &mut self.rings[index];
        let kick = ring.kick.as_ref().ok_or(RingError::NotConfigured)?;
        epoll_add(&self.epoll, kick, KICK + index as u64).map_err(|_| RingError::NotConfigured)?;
        if ring.run_number().is_some() {
            return Ok(()); // only the descriptor was replaced
        }
        let run = self.next_run;
        self.next_run += 1;
        ring.queue.set_event_idx(event_idx);
        ring.enabled |= enable;
        let pending = ring.start(&memory, self.inflight.as_ref(), run)?;
        self.engine.begin_run(run);
        if !pending.is_empty() {
            tracing::info!(ring = index, requests = pending.len(), "submitting the requests in flight again");
        }
        for head in pending {
            let request = self.rings[index].take_chain(&memory, head, self.capacity)?;
            self.submit(index, head, request, &memory);
        }
        // The device may have ended after it put an answer into the used ring and before it notified the driver.
        self.rings[index].signal();
        self.serve_ring(index)
    }

    /// Stops a ring. Completions of its requests that arrive later are ignored.
    pub fn stop_ring(&mut self, index: usize) {
        self.close_kick(index);
        if let Some(run) = self.rings[index].stop() {
            self.engine.end_run(run);
        }
    }

    /// Stops watching a ring's kick descriptor and closes it.
    pub fn close_kick(&mut self, index: usize) {
        if let Some(kick) = self.rings[index].kick.take() {
            // An error means that the descriptor was not registered, because the ring could not be started.
            let _ = epoll::delete(&*self.epoll, &kick);
        }
    }

    /// Waits until a ring has no request in flight, at most for the drain limit, then stops it. Returns the index of
    /// the next entry of its available ring.
    pub fn drain_ring(&mut self, index: usize) -> Result<u16, RingError> {
        let deadline = Instant::now() + self.drain_limit;
        self.rings[index].draining = true;
        // A stop of the device ends the wait: the thread that stops it may be the thread that would answer the
        // requests.
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
            self.process_completions()?;
        }
        let base = self.rings[index].queue.next_avail();
        self.stop_ring(index);
        Ok(base)
    }

    /// Handles a kick of the driver, which announces requests in a ring.
    pub fn on_kick(&mut self, index: usize) -> Result<(), RingError> {
        self.rings[index].clear_kick();
        self.serve_ring(index)
    }

    /// Passes completions of the backend to the engine, answers finished requests, and serves rings whose requests
    /// could not be taken before.
    pub fn process_completions(&mut self) -> Result<(), RingError> {
        for completion in self.shared.mailbox.take() {
            self.engine.complete(completion);
        }
        self.answer_finished()?;
        if std::mem::take(&mut self.stalled) {
            for index in 0..self.rings.len() {
                self.serve_ring(index)?;
            }
        }
        Ok(())
    }

    /// Takes requests from a ring until it is empty or the engine is full, and answers those that are finished.
    pub fn serve_ring(&mut self, index: usize) -> Result<(), RingError> {
        if !self.rings[index].is_open() {
            return Ok(());
        }
        if self.engine.has_dead() {
            self.stalled = true;
            return Ok(());
        }
        let memory = self.guest_memory()?;
        loop {
            self.rings[index].queue.disable_notification(&*memory)?;
            loop {
                if self.engine.is_full() {
                    self.stalled = true;
                    return self.answer_finished();
                }
                let ring = &mut self.rings[index];
                let Some((head, request)) = ring.take_next(&memory, self.capacity)? else {
                    break;
                };
                self.submit(index, head, request, &memory);
            }
            if !self.rings[index].queue.enable_notification(&*memory)? {
                break;
            }
        }
        self.answer_finished()
    }

    /// Passes a request that was taken from a ring to the engine.
    fn submit(&mut self, index: usize, head: u16, mut request: GuestRequest, memory: &Arc<GuestMemory>) {
        let run = self.rings[index].run_number().expect("only a started ring has requests");
        if self.read_only {
            request.refuse_changes();
        }
        let chain = ChainId { ring: index as u16, head, run };
        // virtio 5.2.5: a driver without FLUSH relies on each write being durable when it is answered.
        let flush_after = !self.has_feature(virtio_blk::VIRTIO_BLK_F_FLUSH);
        self.engine.submit(chain, request, memory, flush_after);
    }

    /// Answers the finished requests to the driver, unless their rings were stopped meanwhile.
    fn answer_finished(&mut self) -> Result<(), RingError> {
        let finished = self.engine.take_finished();
        if finished.is_empty() {
            return Ok(());
        }
        let memory = self.guest_memory()?;
        let mut touched = vec![false; self.rings.len()];
        for done in &finished {
            let ring = usize::from(done.chain.ring);
            if self.rings[ring].run_number() == Some(done.chain.run) {
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

    /// Stops all rings and drops their configuration (`VHOST_USER_RESET_DEVICE`).
    pub fn reset_rings(&mut self) {
        for index in 0..self.rings.len() {
            self.stop_ring(index);
            self.rings[index] = Vring::new(index as u16);
        }
        self.stalled = false;
    }

    /// Resets all state that belongs to a connection, when the connection has ended.
    pub fn disconnect(&mut self) {
        self.reset_rings();
        self.features = 0;
        self.log.clear();
        self.memory = None;
        self.inflight = None;
    }

    /// Number of requests that were taken from all rings and not answered.
    pub fn in_flight(&self) -> u64 {
        self.rings.iter().map(|ring| u64::from(ring.in_flight())).sum()
    }
}

/// Lets epoll watch `fd` for input; its events will carry `data`.
pub(crate) fn epoll_add(epoll: &OwnedFd, fd: impl std::os::fd::AsFd, data: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
}
