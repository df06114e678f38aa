//! Authenticated UDP datagrams between the two nodes, sent on one path or on all.
//!
//! Used by the quorum thread, which has real-time priority: [`Beacon::send`] and [`Beacon::receive`] do not
//! allocate, log, lock or access a disk. [`Beacon::refresh`] and [`Beacon::set_paths`] may, and are called rarely.
//!
//! On an interface the peer needs no configured address: datagrams go to the multicast group, and for 1 s after each
//! datagram of the peer to its sender. [`Beacon::peer_address`] returns that address, to which the peer link connects.
//!
//! **Invariants**
//! * No datagram is delivered that the pair key does not authenticate, that was delivered before, or that an earlier
//!   run of the peer sent ([`freshness`]).
//! * After its timeout one call of [`Beacon::receive`] handles at most one more datagram of each path.

mod datagram;
mod freshness;
mod path;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{PairId, PairKey, random_bytes};
use datagram::{DatagramCodec, DatagramKind, FreshnessFields, OVERHEAD_BYTES};
use dyad_types::NodeId;
use freshness::{DatagramVerdict, Freshness};
use path::PathState;

pub use datagram::MAX_BODY;
pub use path::{PathConfig, PathStatus};

/// Maximum number of paths.
pub const MAX_PATHS: usize = 8;

/// The configuration of a [`Beacon`].
#[derive(Debug, Clone)]
pub struct BeaconConfig {
    /// Id of the pair; datagrams of other pairs are only counted.
    pub pair: PairId,
    pub node: NodeId,
    pub key: PairKey,
    /// UDP port of both nodes on interfaces: [`crate::UDP_PORT`] except in tests.
    pub port: u16,
}

/// Numbers of datagrams received since the beacon was opened, by result. Pairing offers are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Fresh and from the peer.
    pub accepted: u64,
    /// In another format or version.
    pub foreign: u64,
    /// Of another pair, or from a node with the same letter as this one.
    pub other_pair: u64,
    /// Not authenticated by the pair key.
    pub forged: u64,
    /// Authentic, but received before, or too old to know.
    pub replayed: u64,
    /// Authentic, but of a run of the peer that has not proven itself.
    pub unproven: u64,
}

/// A datagram of the peer.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Index of the path in the list given to [`Beacon::open`] or, later, to [`Beacon::set_paths`].
    pub path: u8,
    /// Address of the sender.
    pub from: SocketAddr,
    /// The body; never empty.
    pub body: &'a [u8],
}

/// The reason for which [`Beacon::receive`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake<'a> {
    /// Authentic, of the peer's current run, and not a replay.
    Datagram(Received<'a>),
    /// [`Waker::wake`] was called.
    Woken,
    /// The timeout has passed.
    TimedOut,
}

/// Ends a [`Beacon::receive`] from another thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the present or next [`Beacon::receive`] return [`Wake::Woken`].
    pub fn wake(&self) {
        // Fails only if the eventfd's counter is full; then the thread wakes up anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// The errors of a beacon, after which it cannot send or receive on any path.
#[derive(Debug, thiserror::Error)]
pub enum BeaconError {
    /// More than [`MAX_PATHS`] paths.
    #[error("more than eight heartbeat paths")]
    TooManyPaths {
        /// Number of paths given.
        count: usize,
    },
    /// The kernel gives no eventfd, for instance because no file descriptors are left.
    #[error(transparent)]
    EventDescriptor(io::Error),
    /// The sockets of the paths cannot be polled.
    #[error(transparent)]
    Poll(io::Error),
}

/// The UDP sockets of all paths to the peer, and the state that authenticates datagrams.
#[derive(Debug)]
pub struct Beacon {
    codec: DatagramCodec,
    port: u16,
    paths: Vec<PathState>,
    freshness: Freshness,
    waker: Waker,
    counts: DatagramCounts,
    /// Index of the path that is read next, modulo their number.
    next_path: usize,
    receive_buffer: Box<[u8; 2048]>,
    send_buffer: Box<[u8; OVERHEAD_BYTES + MAX_BODY]>,
}

/// The result of waiting for the sockets and the waker.
enum PollResult {
    /// A socket may have a datagram, or a signal interrupted the wait.
    Socket,
    /// [`Waker::wake`] was called.
    Woken,
    /// The time limit has passed.
    Nothing,
}

impl Beacon {
    /// Opens a socket for each of `paths`, at most [`MAX_PATHS`]. A path that cannot be opened because its interface
    /// does not exist is tried again by [`Self::refresh`].
    ///
    /// # Errors
    /// [`BeaconError::TooManyPaths`] or [`BeaconError::EventDescriptor`].
    pub fn open(config: &BeaconConfig, paths: Vec<PathConfig>) -> Result<Self, BeaconError> {
        let waker = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| BeaconError::EventDescriptor(error.into()))?;
        let mut beacon = Self {
            codec: DatagramCodec::new(config.pair, config.node, &config.key),
            port: config.port,
            paths: Vec::new(),
            freshness: Freshness::new(),
            waker: Waker(Arc::new(waker)),
            counts: DatagramCounts::default(),
            next_path: 0,
            receive_buffer: Box::new([0; 2048]),
            send_buffer: Box::new([0; OVERHEAD_BYTES + MAX_BODY]),
        };
        beacon.set_paths(paths)?;
        Ok(beacon)
    }

    /// Replaces the paths; unchanged paths keep their sockets. Allocates memory.
    ///
    /// # Errors
    /// [`BeaconError::TooManyPaths`].
    pub fn set_paths(&mut self, paths: Vec<PathConfig>) -> Result<(), BeaconError> {
        if paths.len() > MAX_PATHS {
            return Err(BeaconError::TooManyPaths { count: paths.len() });
        }
        let mut old = std::mem::take(&mut self.paths);
        for config in paths {
            let kept = old.iter().position(|path| path.config == config).map(|at| old.swap_remove(at));
            self.paths.push(kept.unwrap_or_else(|| PathState::new(config)));
        }
        self.refresh();
        Ok(())
    }

    /// Opens the sockets that could not be opened before, and again those of interfaces that were replaced. Takes a few
    /// system calls for each path. The quorum thread calls it periodically.
    pub fn refresh(&mut self) {
        for path in &mut self.paths {
            path.refresh(self.port);
        }
    }

    /// Sends `body` (1 to [`MAX_BODY`] bytes) on `path`, or with `None` on all paths. Returns the paths on which the
    /// kernel accepted it, as a bit mask: bit n is path n. Never blocks.
    ///
    /// # Panics
    /// If `body` is empty or too long, which is a defect of the caller.
    pub fn send(&mut self, path: Option<u8>, body: &[u8]) -> u8 {
        assert!((1..=MAX_BODY).contains(&body.len()), "a beacon body of {} bytes", body.len());
        let now = Instant::now();
        let mut sent = 0;
        for (at, state) in self.paths.iter_mut().enumerate() {
            if path.is_some_and(|only| usize::from(only) != at) {
                continue;
            }
            // Each datagram has its own counter, so that the copies on two paths are not replays of each other.
            let fields = self.freshness.next_fields();
            let length = self.codec.seal(&fields, body, &mut self.send_buffer[..]);
            if state.send(&self.send_buffer[..length], now, self.port) {
                sent |= 1 << at;
            }
        }
        sent
    }

    /// Waits up to `timeout` for a datagram of the peer or a [`Waker`].
    ///
    /// # Errors
    /// [`BeaconError::Poll`]. An error of reading a single path's socket is ignored.
    pub fn receive(&mut self, timeout: Duration) -> Result<Wake<'_>, BeaconError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut any = false;
            for _ in 0..self.paths.len() {
                let at = self.next_path % self.paths.len();
                self.next_path = at + 1;
                let Some((length, from)) = self.paths[at].receive(&mut self.receive_buffer[..]) else { continue };
                any = true;
                let Some(body) = self.judge(at, from, length) else { continue };
                let path = u8::try_from(at).expect("at most eight paths");
                return Ok(Wake::Datagram(Received { path, from, body: &self.receive_buffer[body] }));
            }
            let left = if any { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
            match self.wait(left)? {
                PollResult::Woken => return Ok(Wake::Woken),
                PollResult::Nothing if !any => return Ok(Wake::TimedOut),
                PollResult::Socket | PollResult::Nothing if Instant::now() >= deadline && any => {
                    return Ok(Wake::TimedOut);
                }
                PollResult::Socket | PollResult::Nothing => {}
            }
        }
    }

    /// Checks and counts a datagram received on path `at`. Returns the position of its body in `receive_buffer` if the
    /// body is to be delivered.
    fn judge(&mut self, at: usize, from: SocketAddr, length: usize) -> Option<std::ops::Range<usize>> {
        let (fields, body) = match self.codec.open(&self.receive_buffer[..length]) {
            DatagramKind::Authentic(fields, body) => (fields, body),
            DatagramKind::Discovery => return None,
            DatagramKind::Foreign => {
                self.counts.foreign += 1;
                return None;
            }
            DatagramKind::OtherPair => {
                self.counts.other_pair += 1;
                return None;
            }
            DatagramKind::Forged => {
                self.counts.forged += 1;
                return None;
            }
        };
        match self.freshness.judge(&fields, || u64::from_ne_bytes(random_bytes())) {
            DatagramVerdict::Fresh => {
                self.counts.accepted += 1;
                self.paths[at].heard_from(from, Instant::now());
                (!body.is_empty()).then_some(body)
            }
            DatagramVerdict::Replayed => {
                self.counts.replayed += 1;
                None
            }
            DatagramVerdict::Unproven => {
                self.counts.unproven += 1;
                self.answer(at, from, &fields);
                None
            }
        }
    }

    /// Sends an unproven run of the peer the challenge by which it can prove itself.
    fn answer(&mut self, at: usize, to: SocketAddr, fields: &FreshnessFields) {
        let fields = self.freshness.answer_fields(fields);
        let length = self.codec.seal(&fields, &[], &mut self.send_buffer[..]);
        self.paths[at].send_to(&self.send_buffer[..length], to);
    }

    /// Waits up to `left` until a socket can be read or the waker is used.
    fn wait(&mut self, left: Duration) -> Result<PollResult, BeaconError> {
        let waker = self.waker.0.as_fd();
        // Index 0 is the waker. The array has a fixed length; the entries behind `count` are not polled.
        let mut polled: [PollFd<'_>; MAX_PATHS + 1] =
            std::array::from_fn(|_| PollFd::from_borrowed_fd(waker, PollFlags::IN));
        let mut count = 1;
        for socket in self.paths.iter().filter_map(PathState::socket) {
            polled[count] = PollFd::from_borrowed_fd(socket, PollFlags::IN);
            count += 1;
        }
        let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 });
        let ready = match rustix::event::poll(&mut polled[..count], Some(&limit)) {
            Ok(ready) => ready,
            // A signal interrupted the wait: the caller checks the clock and the sockets again.
            Err(rustix::io::Errno::INTR) => return Ok(PollResult::Socket),
            Err(error) => return Err(BeaconError::Poll(error.into())),
        };
        if !polled[0].revents().is_empty() {
            let _ = rustix::io::read(&*self.waker.0, &mut [0; 8]);
            return Ok(PollResult::Woken);
        }
        Ok(if ready == 0 { PollResult::Nothing } else { PollResult::Socket })
    }

    /// A handle that ends [`Self::receive`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The address from which the peer was last heard on `path`, with the scope id of a link-local address. The port is
    /// the one of the datagrams.
    #[must_use]
    pub fn peer_address(&self, path: u8) -> Option<SocketAddr> {
        self.paths.get(usize::from(path))?.peer()
    }

    /// The address to which the socket of `path` is bound.
    #[must_use]
    pub fn local_address(&self, path: u8) -> Option<SocketAddr> {
        self.paths.get(usize::from(path))?.local()
    }

    /// The state of each path, in the order of the paths. Allocates memory.
    #[must_use]
    pub fn status(&self) -> Vec<PathStatus> {
        let now = Instant::now();
        self.paths.iter().map(|path| path.status(now)).collect()
    }

    /// A copy of the counters.
    #[must_use]
    pub fn counts(&self) -> DatagramCounts {
        self.counts
    }
}
