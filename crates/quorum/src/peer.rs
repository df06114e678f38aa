//! The peer as this node knows it: the paths that work in both directions, the boot of the sender, the state that the
//! peer reports.
//!
//! A path is up when heartbeats arrive on it *and* give back one of the newest `max_missed_heartbeats` + 1 heartbeats
//! of this node. The heartbeats of this node are counted, not timed: a node that was not scheduled has sent none, and
//! must not take its own silence for the peer's.
//!
//! A new boot id or start time counts only in a heartbeat that gives back a heartbeat which this node sent after the
//! newest heartbeat of the former boot had arrived. Such a heartbeat was made later than all of those, so all VMs of
//! the former boot are gone. A replayed datagram does not satisfy this.

use crate::event::{MAX_PATHS, Proof};
use crate::message::{Datagram, Echo, Health, Heartbeat};
use crate::timing::{SEC, Timing};
use crate::types::{BootTime, Config, Nanos};
use std::collections::VecDeque;

/// Length of time over which the clock rates are compared. ρ = 1 % of it is 1 s; the delays of the two datagrams may
/// add D/2 (250 ms).
const DRIFT_PERIOD: Nanos = 100 * SEC;

/// One path of the peer link.
#[derive(Clone, Debug, Default)]
struct Path {
    /// The newest heartbeat received on this path, confirmed or not: the next heartbeat gives it back.
    heard: Option<Echo>,
    /// Arrival of the newest confirmed heartbeat on this path.
    heard_at: Option<BootTime>,
    /// `sent` of the newest heartbeat of this node that the peer gave back on this path.
    echoed: Option<BootTime>,
    /// Number of the newest confirmed heartbeat on this path.
    newest_number: u64,
}

/// One run of a daemon, identified by boot id and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DaemonRun {
    boot: u128,
    started: BootTime,
}

/// The heartbeats that this node sends.
#[derive(Clone, Debug, Default)]
struct OwnHeartbeats {
    /// Number of the newest one; 0 before the first.
    newest_number: u64,
    /// Time at which the next one is due.
    next_at: BootTime,
    /// Times at which the newest `max_missed_heartbeats` + 1 were sent, oldest first.
    sent: VecDeque<BootTime>,
}

/// A time on the peer's clock.
#[derive(Clone, Copy, Debug)]
struct PeerTime(BootTime);

/// Compares the rate of the peer's clock with the rate of this node's clock.
#[derive(Clone, Copy, Debug, Default)]
struct DriftCheck {
    /// Time of this node and of the peer at the beginning of the running [`DRIFT_PERIOD`].
    begin: Option<(BootTime, PeerTime)>,
    /// The rates differed by more than ρ over the last complete period.
    drifts: bool,
}

impl DriftCheck {
    fn compare(&mut self, now: BootTime, theirs: PeerTime, timing: &Timing) {
        let Some((now0, theirs0)) = self.begin else {
            self.begin = Some((now, theirs));
            return;
        };
        let mine = now.since(now0);
        if mine < DRIFT_PERIOD {
            return;
        }
        let gap = mine.abs_diff(theirs.0.since(theirs0.0));
        self.drifts = gap > timing.drift_of(mine, 1) + timing.detection_delay() / 2;
        self.begin = Some((now, theirs));
    }
}

/// The peer as this node knows it.
///
/// Invariant: `alive_since` and `lost_at` are not both set after [`PeerState::judge`] found the peer alive.
/// `incarnation`, `base`, `health` and `storage_stuck_since` come from confirmed heartbeats of `current_run` only.
#[derive(Clone, Debug)]
pub(crate) struct PeerState {
    paths: Vec<Path>,
    /// The run of the peer's daemon whose heartbeats count.
    current_run: Option<DaemonRun>,
    /// Arrival of the newest confirmed heartbeat of the peer.
    heard_at: BootTime,
    /// Number of the newest confirmed heartbeat of `current_run`.
    newest_number: u64,
    incarnation: u64,
    base: Option<Config>,
    health: Option<Health>,
    /// Arrival of the first of the newest heartbeats that all report that the peer's pool does not answer; `None` = the
    /// newest heartbeat reports that it answers.
    storage_stuck_since: Option<BootTime>,
    /// Start of the time in which the peer was heard without a break. Restarted when the mirror of a solo node reports
    /// the peer as stuck.
    pub(crate) alive_since: Option<BootTime>,
    /// Time from which on the peer counts as silent. It lies in the future after this node itself was not scheduled.
    pub(crate) lost_at: Option<BootTime>,
    /// The newest evidence of the peer's death from outside its heartbeats, and the time at which it came.
    pub(crate) proof: Option<(Proof, BootTime)>,
    /// Time at which the peer's end of the data session was closed.
    pub(crate) session_closed_at: Option<BootTime>,
    /// The peer's watchdog is proven: from its newest heartbeat, before that from [`crate::Setup`].
    pub(crate) watchdog_proven: bool,
    drift: DriftCheck,
    own: OwnHeartbeats,
}

/// The result of [`PeerState::hear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The heartbeat is new, comes from the current run of the daemon, and gives back a heartbeat of this node.
    pub confirmed: bool,
    /// The heartbeat shows that the peer's machine was booted again, with the same store.
    pub new_boot: bool,
}

impl PeerState {
    /// At the start of the daemon. The first heartbeat is due at once.
    pub(crate) fn at_start(now: BootTime, paths: u8, watchdog_proven: bool) -> PeerState {
        let count = usize::from(paths).clamp(1, MAX_PATHS);
        PeerState {
            paths: vec![Path::default(); count],
            current_run: None,
            heard_at: BootTime::ZERO,
            newest_number: 0,
            incarnation: 0,
            base: None,
            health: None,
            storage_stuck_since: None,
            alive_since: None,
            lost_at: None,
            proof: None,
            session_closed_at: None,
            watchdog_proven,
            drift: DriftCheck::default(),
            own: OwnHeartbeats { next_at: now, ..OwnHeartbeats::default() },
        }
    }

    /// Time at which the next heartbeat of this node is due.
    pub(crate) fn next_heartbeat(&self) -> BootTime {
        self.own.next_at
    }

    pub(crate) fn set_next_heartbeat(&mut self, at: BootTime) {
        self.own.next_at = at;
    }

    /// Counts a heartbeat of this node, which the caller sends on every path now, and returns its number.
    pub(crate) fn begin_heartbeat(&mut self, now: BootTime, timing: &Timing) -> u64 {
        self.own.next_at = now + timing.heartbeat_interval;
        self.own.newest_number += 1;
        self.own.sent.push_back(now);
        if self.own.sent.len() as u64 > timing.max_missed_heartbeats + 1 {
            self.own.sent.pop_front();
        }
        self.own.newest_number
    }

    /// Updates `alive_since` and `lost_at`.
    pub(crate) fn judge(&mut self, now: BootTime, timing: &Timing) {
        // After a dying gasp the peer counts as silent at once, unless it is heard later than that.
        let gasped = matches!(self.proof, Some((Proof::DyingGasp, at)) if at >= self.heard_at);
        if self.alive(now, timing) && !gasped {
            self.alive_since.get_or_insert(now);
            self.lost_at = None;
        } else if self.alive_since.take().is_some() {
            self.lost_at = self.lost_at.max(Some(now));
        }
    }

    /// Whether the peer counts as silent, and a proof of its death came after its newest heartbeat.
    pub(crate) fn is_dead(&self) -> bool {
        self.alive_since.is_none() && self.proof.is_some_and(|(_, at)| at >= self.heard_at)
    }

    /// Handles a heartbeat that arrived on `path`. `mine` is boot id and start time of this daemon.
    pub(crate) fn hear(
        &mut self,
        now: BootTime,
        path: usize,
        datagram: &Datagram,
        beat: &Heartbeat,
        mine: (u128, BootTime),
        timing: &Timing,
    ) -> Heard {
        let mut heard = Heard { confirmed: false, new_boot: false };
        let Some(path_state) = self.paths.get_mut(path) else { return heard };
        let sender = DaemonRun { boot: datagram.boot, started: datagram.started };
        let echo_of_it = Echo { boot: datagram.boot, started: datagram.started, sent: beat.sent };
        let newer = path_state.heard.is_none_or(|old| {
            (old.boot, old.started) != (echo_of_it.boot, echo_of_it.started) || old.sent < echo_of_it.sent
        });
        if newer {
            path_state.heard = Some(echo_of_it);
        }
        let Some(echo) = beat.heard.filter(|echo| (echo.boot, echo.started) == mine && echo.sent <= now) else {
            return heard;
        };
        if self.current_run != Some(sender) {
            let in_time = now - echo.sent <= timing.detection_delay() + timing.heartbeat_interval;
            if !in_time || self.current_run.is_some() && echo.sent <= self.heard_at {
                return heard;
            }
            heard.new_boot =
                self.current_run.is_some_and(|old| old.boot != sender.boot) && self.incarnation == datagram.incarnation;
            self.switch_to(sender);
        }
        let path_state = &mut self.paths[path];
        if beat.number > path_state.newest_number || path_state.echoed.is_none() {
            path_state.newest_number = beat.number;
            path_state.heard_at = Some(now);
            path_state.echoed = path_state.echoed.max(Some(echo.sent));
            self.heard_at = now;
            heard.confirmed = true;
        }
        if beat.number > self.newest_number {
            self.newest_number = beat.number;
            self.incarnation = datagram.incarnation;
            self.base = Some(beat.base.clone());
            self.health = Some(beat.health);
            let since = self.storage_stuck_since.unwrap_or(now);
            self.storage_stuck_since = (!beat.storage_answers).then_some(since);
            self.drift.compare(now, PeerTime(beat.sent), timing);
        }
        heard
    }

    fn switch_to(&mut self, sender: DaemonRun) {
        self.current_run = Some(sender);
        self.newest_number = 0;
        self.base = None;
        self.health = None;
        self.storage_stuck_since = None;
        self.drift = DriftCheck::default();
        for path in &mut self.paths {
            path.heard_at = None;
            path.echoed = None;
            path.newest_number = 0;
        }
    }

    /// Time until which the path counts as up if nothing more arrives on it; `None` = the peer has given back none of
    /// the newest heartbeats of this node.
    fn up_until(&self, path: usize, timing: &Timing) -> Option<BootTime> {
        let path = self.paths.get(path)?;
        // More than `max_missed_heartbeats` heartbeats were sent since the newest one given back.
        let missed =
            self.own.sent.len() as u64 > timing.max_missed_heartbeats && self.own.sent.front() > path.echoed.as_ref();
        path.echoed.filter(|_| !missed)?;
        Some(path.heard_at? + timing.detection_delay())
    }

    /// Whether heartbeats pass in both directions of this path.
    pub(crate) fn path_up(&self, path: usize, now: BootTime, timing: &Timing) -> bool {
        self.up_until(path, timing).is_some_and(|until| now <= until)
    }

    /// Time until which at least one path counts as up if nothing more arrives; 0 = no path is up.
    pub(crate) fn alive_until(&self, timing: &Timing) -> BootTime {
        (0..self.paths.len()).filter_map(|path| self.up_until(path, timing)).max().unwrap_or_default()
    }

    /// Whether heartbeats pass in both directions of at least one path.
    pub(crate) fn alive(&self, now: BootTime, timing: &Timing) -> bool {
        now <= self.alive_until(timing) && self.current_run.is_some()
    }

    /// The echo that the next heartbeat on this path gives back.
    pub(crate) fn echo(&self, path: usize) -> Option<Echo> {
        self.paths.get(path).and_then(|path| path.heard)
    }

    pub(crate) fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// Arrival of the newest confirmed heartbeat; 0 = none arrived.
    pub(crate) fn heard_at(&self) -> BootTime {
        self.heard_at
    }

    /// The incarnation of the peer's store, from its newest heartbeat; 0 = none arrived.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The base of the peer, from its newest heartbeat.
    pub(crate) fn base(&self) -> Option<&Config> {
        self.base.as_ref()
    }

    pub(crate) fn health(&self) -> Option<Health> {
        self.health
    }

    /// Arrival of the first of the newest heartbeats that all report that the peer's pool does not answer.
    pub(crate) fn storage_stuck_since(&self) -> Option<BootTime> {
        self.storage_stuck_since
    }

    /// Whether the clocks of the nodes drift apart by more than ρ.
    pub(crate) fn drifts(&self) -> bool {
        self.drift.drifts
    }
}
