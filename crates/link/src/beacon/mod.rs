//! Authenticated datagrams between the two nodes, on every path at once.
//!
//! Made for the heartbeat thread: a plain thread of real-time priority. [`Beacon::send`] and
//! [`Beacon::receive`] do not allocate, log, lock or touch a disk; [`Beacon::refresh`] and
//! [`Beacon::set_paths`] may, and are called rarely.
//!
//! On an interface the peer needs no configured address: datagrams go to the multicast group
//! until one came from the peer, then to where it came from. The sender of a fresh datagram is the
//! peer; [`Beacon::peer_address`] tells the peer link where to dial.
//!
//! **Invariants**
//! * Nothing is delivered that the pair key does not authenticate, that was delivered before, or
//!   that an earlier run of either node had sent ([`freshness`]).
//! * One call of [`Beacon::receive`] handles at most one datagram of each path beyond its time.

mod datagram;
mod freshness;
mod path;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{PairId, PairKey, random};
use datagram::{Keys, OVERHEAD, Opened, Stamp};
use dyad_types::NodeId;
use freshness::{DatagramVerdict, Freshness};
use path::PathState;

pub use datagram::MAX_BODY;
pub use path::{PathConfig, PathStatus};

/// Paths a beacon has at most.
pub const MAX_PATHS: usize = 8;

/// What a [`Beacon`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The installation both nodes belong to.
    pub pair: PairId,
    /// Which node this is.
    pub node: NodeId,
    /// The secret of the pair.
    pub key: PairKey,
    /// UDP port on interfaces, for both nodes: [`crate::UDP_PORT`] but in tests.
    pub port: u16,
}

/// Datagrams counted since the beacon was opened, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fresh and from the peer.
    pub accepted: u64,
    /// Not ours at all, or of another version.
    pub foreign: u64,
    /// Of another pair, or from a node that calls itself as we do.
    pub other_pair: u64,
    /// Not authenticated by the pair key.
    pub forged: u64,
    /// Authentic but seen before.
    pub replayed: u64,
    /// Authentic, but of a run of the peer that has not yet proven to be going on now.
    pub unproven: u64,
}

/// A datagram of the peer.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The path it came on.
    pub path: u8,
    /// Where it came from.
    pub from: SocketAddr,
    /// What it says; never empty.
    pub body: &'a [u8],
}

/// Why [`Beacon::receive`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake<'a> {
    /// A datagram came.
    Datagram(Received<'a>),
    /// Somebody called [`Waker::wake`].
    Woken,
    /// The time is over.
    TimedOut,
}

/// Ends a [`Beacon::receive`] from another thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the current or next [`Beacon::receive`] return [`Wake::Woken`].
    pub fn wake(&self) {
        // Fails only when the counter is full: the thread is going to wake up anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// The datagram sockets of a node.
#[derive(Debug)]
pub struct Beacon {
    keys: Keys,
    port: u16,
    paths: Vec<PathState>,
    freshness: Freshness,
    waker: Waker,
    counts: Counts,
    /// The path whose turn it is to be read.
    turn: usize,
    inbox: Box<[u8; 2048]>,
    outbox: Box<[u8; OVERHEAD + MAX_BODY]>,
}

enum Ready {
    Socket,
    Woken,
    Nothing,
}

impl Beacon {
    /// Opens a socket for each of `paths`, at most [`MAX_PATHS`]. A path that cannot be opened now,
    /// because its interface is not there, is tried again by [`Self::refresh`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for too many paths; what the system says about event file
    /// descriptors.
    pub fn open(config: &Config, paths: Vec<PathConfig>) -> io::Result<Self> {
        let waker = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let mut beacon = Self {
            keys: Keys::new(config.pair, config.node, &config.key),
            port: config.port,
            paths: Vec::new(),
            freshness: Freshness::new(),
            waker: Waker(Arc::new(waker)),
            counts: Counts::default(),
            turn: 0,
            inbox: Box::new([0; 2048]),
            outbox: Box::new([0; OVERHEAD + MAX_BODY]),
        };
        beacon.set_paths(paths)?;
        Ok(beacon)
    }

    /// Replaces the paths; the sockets of those that stay are kept. Allocates.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for more than [`MAX_PATHS`].
    pub fn set_paths(&mut self, paths: Vec<PathConfig>) -> io::Result<()> {
        if paths.len() > MAX_PATHS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than eight heartbeat paths"));
        }
        let mut old = std::mem::take(&mut self.paths);
        for config in paths {
            let kept = old.iter().position(|path| path.config == config).map(|at| old.swap_remove(at));
            self.paths.push(kept.unwrap_or_else(|| PathState::new(config)));
        }
        self.refresh();
        Ok(())
    }

    /// Opens what could not be opened before, and follows interfaces that went and came back. A few
    /// system calls for each path; call it about once a second, or when the kernel tells of a
    /// change.
    pub fn refresh(&mut self) {
        for path in &mut self.paths {
            path.refresh(self.port);
        }
    }

    /// Sends `body` (1 to [`MAX_BODY`] bytes) on `path`, or on all paths. Returns the set of paths
    /// the system took it on, one bit each; never blocks.
    ///
    /// # Panics
    /// If `body` is empty or too long: the caller's messages are of bounded size.
    pub fn send(&mut self, path: Option<u8>, body: &[u8]) -> u8 {
        assert!((1..=MAX_BODY).contains(&body.len()), "a beacon body of {} bytes", body.len());
        let now = Instant::now();
        let mut sent = 0;
        for (at, state) in self.paths.iter_mut().enumerate() {
            if path.is_some_and(|only| usize::from(only) != at) {
                continue;
            }
            // Each datagram has a counter of its own: the same one on two paths is no replay.
            let stamp = self.freshness.stamp();
            let length = self.keys.seal(&stamp, body, &mut self.outbox[..]);
            if state.send(&self.outbox[..length], now, self.port) {
                sent |= 1 << at;
            }
        }
        sent
    }

    /// Waits up to `timeout` for a datagram of the peer or a [`Waker`].
    ///
    /// # Errors
    /// What the system says about polling; an error of a single path only marks that path.
    pub fn receive(&mut self, timeout: Duration) -> io::Result<Wake<'_>> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut any = false;
            for _ in 0..self.paths.len() {
                let at = self.turn % self.paths.len();
                self.turn = at + 1;
                let Some((length, from)) = self.paths[at].receive(&mut self.inbox[..]) else { continue };
                any = true;
                let Some(body) = self.judge(at, from, length) else { continue };
                let path = u8::try_from(at).expect("at most eight paths");
                return Ok(Wake::Datagram(Received { path, from, body: &self.inbox[body] }));
            }
            let left = if any { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
            match self.wait(left)? {
                Ready::Woken => return Ok(Wake::Woken),
                Ready::Nothing if !any => return Ok(Wake::TimedOut),
                Ready::Socket | Ready::Nothing if Instant::now() >= deadline && any => return Ok(Wake::TimedOut),
                Ready::Socket | Ready::Nothing => {}
            }
        }
    }

    /// The body's place in the inbox, if what came on path `at` is to be delivered.
    fn judge(&mut self, at: usize, from: SocketAddr, length: usize) -> Option<std::ops::Range<usize>> {
        let (stamp, body) = match self.keys.open(&self.inbox[..length]) {
            Opened::Authentic(stamp, body) => (stamp, body),
            Opened::Discovery => return None,
            Opened::Foreign => {
                self.counts.foreign += 1;
                return None;
            }
            Opened::OtherPair => {
                self.counts.other_pair += 1;
                return None;
            }
            Opened::Forged => {
                self.counts.forged += 1;
                return None;
            }
        };
        match self.freshness.judge(&stamp, || u64::from_ne_bytes(random())) {
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
                self.answer(at, from, &stamp);
                None
            }
        }
    }

    /// Gives a run of the peer that we do not know the challenge by which it can prove itself.
    fn answer(&mut self, at: usize, to: SocketAddr, stamp: &Stamp) {
        let stamp = self.freshness.answer(stamp);
        let length = self.keys.seal(&stamp, &[], &mut self.outbox[..]);
        self.paths[at].send_to(&self.outbox[..length], to);
    }

    fn wait(&mut self, left: Duration) -> io::Result<Ready> {
        let waker = self.waker.0.as_fd();
        // Index 0 is the waker, and stands in for paths without a socket.
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
            // A signal: look at the clock and the sockets again.
            Err(rustix::io::Errno::INTR) => return Ok(Ready::Socket),
            Err(error) => return Err(error.into()),
        };
        if !polled[0].revents().is_empty() {
            let _ = rustix::io::read(&*self.waker.0, &mut [0; 8]);
            return Ok(Ready::Woken);
        }
        Ok(if ready == 0 { Ready::Nothing } else { Ready::Socket })
    }

    /// A handle that ends [`Self::receive`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Where the peer was last heard on `path`, with the scope id of a link-local address. The
    /// port is that of the datagrams.
    #[must_use]
    pub fn peer_address(&self, path: u8) -> Option<SocketAddr> {
        self.paths.get(usize::from(path))?.peer()
    }

    /// The address the socket of `path` is bound to.
    #[must_use]
    pub fn local_address(&self, path: u8) -> Option<SocketAddr> {
        self.paths.get(usize::from(path))?.local()
    }

    /// The state of each path, in their order. Allocates.
    #[must_use]
    pub fn status(&self) -> Vec<PathStatus> {
        let now = Instant::now();
        self.paths.iter().map(|path| path.status(now)).collect()
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
