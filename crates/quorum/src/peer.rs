//! What is known of the peer: which paths work in both directions, which boot of it sends, what it says of itself.
//!
//! A path is up when heartbeats arrive on it *and* give back one of the newest `misses` + 1 heartbeats of this node. They
//! are counted, not timed: a node that was not scheduled has sent none, and must not take its own silence for the peer's.
//!
//! A new boot id counts only in a heartbeat that gives back an echo of this node newer than every heartbeat of the old
//! boot. Such a heartbeat was made after them, so what ran under the old boot is gone. A replayed datagram cannot do that.

use crate::event::{MAX_PATHS, Proof};
use crate::message::{Datagram, Echo, Health, Heartbeat};
use crate::timing::{SEC, Timing};
use crate::types::{BootTime, Config, Nanos};
use std::collections::VecDeque;

/// Clock rates are compared over this length of time: ρ = 1 % of it is 1 s, twice the jitter of a datagram (D).
const DRIFT_PERIOD: Nanos = 100 * SEC;

/// One path of the peer link.
#[derive(Clone, Debug, Default)]
struct Path {
    /// The newest heartbeat heard here, to give back.
    heard: Option<Echo>,
    /// When the last new heartbeat arrived.
    heard_at: Option<BootTime>,
    /// `sent` of the newest heartbeat of this node that was given back.
    echoed: Option<BootTime>,
    /// Number of the newest heartbeat heard here.
    newest_number: u64,
}

/// The run of the peer's daemon whose heartbeats count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instance {
    boot: u128,
    started: BootTime,
}

/// The heartbeats of this node.
#[derive(Clone, Debug, Default)]
struct OwnHeartbeats {
    /// 0 before the first heartbeat.
    newest_number: u64,
    /// When the next one is due.
    next_at: BootTime,
    /// When the newest `misses` + 1 were sent, oldest first.
    sent: VecDeque<BootTime>,
}

/// A time on the peer's clock.
#[derive(Clone, Copy, Debug)]
struct PeerTime(BootTime);

/// Compares the rate of the peer's clock with the own one.
#[derive(Clone, Copy, Debug, Default)]
struct DriftCheck {
    /// Own time and peer's time at the beginning of the period.
    begin: Option<(BootTime, PeerTime)>,
    /// The rates differed by more than ρ over the last whole period.
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
        self.drifts = gap > timing.drift_of(mine, 1) + timing.detection() / 2;
        self.begin = Some((now, theirs));
    }
}

/// What is known of the peer.
///
/// Invariant: `alive_since` and `lost_at` are not both set after [`PeerView::judge`] found the peer alive. What it says
/// of itself (`incarnation`, `base`, `health`) comes from confirmed heartbeats of `instance` only.
#[derive(Clone, Debug)]
pub(crate) struct PeerView {
    paths: Vec<Path>,
    instance: Option<Instance>,
    /// When a confirmed heartbeat of the instance last arrived.
    heard_at: BootTime,
    /// Number of its newest confirmed heartbeat.
    newest_number: u64,
    incarnation: u64,
    base: Option<Config>,
    health: Option<Health>,
    /// Since when it is up without a break.
    pub(crate) alive_since: Option<BootTime>,
    /// Since when it counts as silent.
    pub(crate) lost_at: Option<BootTime>,
    /// The newest evidence of its death from outside its heartbeats, and when it came.
    pub(crate) proof: Option<(Proof, BootTime)>,
    /// When the peer's kernel closed the data session.
    pub(crate) session_closed_at: Option<BootTime>,
    /// Its watchdog is proven: as it last said itself, or as this node's file said at start.
    pub(crate) watchdog: bool,
    drift: DriftCheck,
    own: OwnHeartbeats,
}

/// What a heartbeat shows beyond its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// It is new, of the current instance, and gives back a heartbeat of this node.
    pub confirmed: bool,
    /// The machine of the peer was booted again, with the same store.
    pub new_boot: bool,
}

impl PeerView {
    /// At the start of the daemon. The first heartbeat is due at once.
    pub(crate) fn at_start(now: BootTime, paths: u8, watchdog: bool) -> PeerView {
        let count = usize::from(paths).clamp(1, MAX_PATHS);
        PeerView {
            paths: vec![Path::default(); count],
            instance: None,
            heard_at: BootTime::ZERO,
            newest_number: 0,
            incarnation: 0,
            base: None,
            health: None,
            alive_since: None,
            lost_at: None,
            proof: None,
            session_closed_at: None,
            watchdog,
            drift: DriftCheck::default(),
            own: OwnHeartbeats { next_at: now, ..OwnHeartbeats::default() },
        }
    }

    /// When the next heartbeat of this node is due.
    pub(crate) fn next_heartbeat(&self) -> BootTime {
        self.own.next_at
    }

    /// Makes the next heartbeat due at this time.
    pub(crate) fn set_next_heartbeat(&mut self, at: BootTime) {
        self.own.next_at = at;
    }

    /// A heartbeat of this node goes out on every path now: returns its number.
    pub(crate) fn begin_heartbeat(&mut self, now: BootTime, timing: &Timing) -> u64 {
        self.own.next_at = now + timing.heartbeat;
        self.own.newest_number += 1;
        self.own.sent.push_back(now);
        if self.own.sent.len() as u64 > timing.misses + 1 {
            self.own.sent.pop_front();
        }
        self.own.newest_number
    }

    /// Notes whether the peer is up now.
    pub(crate) fn judge(&mut self, now: BootTime, timing: &Timing) {
        // A dying gasp needs no confirmation by silence, unless the peer is heard after it.
        let gasped = matches!(self.proof, Some((Proof::DyingGasp, at)) if at >= self.heard_at);
        if self.alive(now, timing) && !gasped {
            self.alive_since.get_or_insert(now);
            self.lost_at = None;
        } else if self.alive_since.take().is_some() {
            self.lost_at = self.lost_at.max(Some(now));
        }
    }

    /// A proof of its death came, and it was not heard since.
    pub(crate) fn is_dead(&self) -> bool {
        self.alive_since.is_none() && self.proof.is_some_and(|(_, at)| at >= self.heard_at)
    }

    /// Handles a heartbeat. `mine` is (boot, started) of this daemon.
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
        let Some(slot) = self.paths.get_mut(path) else { return heard };
        let sender = Instance { boot: datagram.boot, started: datagram.started };
        let echo_of_it = Echo { boot: datagram.boot, started: datagram.started, sent: beat.sent };
        let newer = slot.heard.is_none_or(|old| {
            (old.boot, old.started) != (echo_of_it.boot, echo_of_it.started) || old.sent < echo_of_it.sent
        });
        if newer {
            slot.heard = Some(echo_of_it);
        }
        let Some(echo) = beat.heard.filter(|echo| (echo.boot, echo.started) == mine && echo.sent <= now) else {
            return heard;
        };
        if self.instance != Some(sender) {
            let in_time = now - echo.sent <= timing.detection() + timing.heartbeat;
            if !in_time || self.instance.is_some() && echo.sent <= self.heard_at {
                return heard;
            }
            heard.new_boot =
                self.instance.is_some_and(|old| old.boot != sender.boot) && self.incarnation == datagram.incarnation;
            self.switch_to(sender);
        }
        let slot = &mut self.paths[path];
        if beat.number > slot.newest_number || slot.echoed.is_none() {
            slot.newest_number = beat.number;
            slot.heard_at = Some(now);
            slot.echoed = slot.echoed.max(Some(echo.sent));
            self.heard_at = now;
            heard.confirmed = true;
        }
        if beat.number > self.newest_number {
            self.newest_number = beat.number;
            self.incarnation = datagram.incarnation;
            self.base = Some(beat.base.clone());
            self.health = Some(beat.health);
            self.drift.compare(now, PeerTime(beat.sent), timing);
        }
        heard
    }

    fn switch_to(&mut self, sender: Instance) {
        self.instance = Some(sender);
        self.newest_number = 0;
        self.base = None;
        self.health = None;
        self.drift = DriftCheck::default();
        for path in &mut self.paths {
            path.heard_at = None;
            path.echoed = None;
            path.newest_number = 0;
        }
    }

    /// Until when the path counts as up if nothing more is heard; `None` = it is not confirmed.
    fn up_until(&self, path: usize, timing: &Timing) -> Option<BootTime> {
        let path = self.paths.get(path)?;
        // More than `misses` heartbeats were sent since the newest one given back.
        let missed = self.own.sent.len() as u64 > timing.misses && self.own.sent.front() > path.echoed.as_ref();
        path.echoed.filter(|_| !missed)?;
        Some(path.heard_at? + timing.detection())
    }

    /// Whether this path works in both directions.
    pub(crate) fn path_up(&self, path: usize, now: BootTime, timing: &Timing) -> bool {
        self.up_until(path, timing).is_some_and(|until| now <= until)
    }

    /// Until when some path counts as up if nothing more is heard; 0 = none does.
    pub(crate) fn alive_until(&self, timing: &Timing) -> BootTime {
        (0..self.paths.len()).filter_map(|path| self.up_until(path, timing)).max().unwrap_or_default()
    }

    /// Whether some path works in both directions.
    pub(crate) fn alive(&self, now: BootTime, timing: &Timing) -> bool {
        now <= self.alive_until(timing) && self.instance.is_some()
    }

    /// The echo that the next heartbeat on this path gives back.
    pub(crate) fn echo(&self, path: usize) -> Option<Echo> {
        self.paths.get(path).and_then(|path| path.heard)
    }

    pub(crate) fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// When a confirmed datagram last arrived; 0 = never.
    pub(crate) fn heard_at(&self) -> BootTime {
        self.heard_at
    }

    /// The incarnation of the peer's store; 0 = never heard.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The base of the peer, as its newest heartbeat says.
    pub(crate) fn base(&self) -> Option<&Config> {
        self.base.as_ref()
    }

    pub(crate) fn health(&self) -> Option<Health> {
        self.health
    }

    /// Whether the clocks of the nodes drift apart by more than ρ.
    pub(crate) fn drifts(&self) -> bool {
        self.drift.drifts
    }
}
