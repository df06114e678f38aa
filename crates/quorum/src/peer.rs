//! What is known of the peer: which paths work in both directions, which boot speaks, how it is.
//!
//! A path is up when heartbeats arrive on it *and* give back one of the last heartbeats that we sent: counted, not timed,
//! so that a node that stood still itself does not take its own silence for the peer's.
//! A new boot id counts only in a datagram that gives back words of ours newer than all we heard of the old
//! boot: then it was made later, and what ran under the old boot is gone. A replayed datagram cannot do that.

use crate::event::MAX_PATHS;
use crate::message::{Datagram, Echo, Health, Heartbeat};
use crate::timing::{SEC, Timing};
use crate::types::{Config, Nanos, Time};
use std::collections::VecDeque;

/// Clock rates are compared over this long.
const DRIFT_PERIOD: Nanos = 100 * SEC;

/// One path of the peer link.
#[derive(Clone, Debug, Default)]
struct Path {
    /// The newest heartbeat heard here, to give back.
    heard: Option<Echo>,
    /// When the last new heartbeat arrived.
    heard_at: Option<Time>,
    /// `sent` of the newest of our heartbeats that was given back.
    echoed: Option<Time>,
    /// The newest sequence number heard here.
    seq: u64,
}

/// The daemon that speaks for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instance {
    boot: u128,
    started: Time,
}

/// What is known of the peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerView {
    paths: Vec<Path>,
    instance: Option<Instance>,
    /// When a confirmed datagram of the instance last arrived.
    heard_at: Time,
    seq: u64,
    incarnation: u64,
    base: Option<Config>,
    health: Option<Health>,
    /// Since when it is up without a break.
    pub(crate) alive_since: Option<Time>,
    /// Since when it counts as silent.
    pub(crate) lost_at: Option<Time>,
    /// First pair of (own time, peer's time) of the drift window.
    window: Option<(Time, Time)>,
    drifts: bool,
    /// When our last heartbeats were sent, oldest first.
    sent: VecDeque<Time>,
}

/// What a heartbeat told beyond its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// It is new, of the current instance, and answers our own heartbeats.
    pub confirmed: bool,
    /// The machine of the peer was booted anew, with the same store.
    pub new_boot: bool,
}

impl PeerView {
    pub(crate) fn new(paths: u8) -> PeerView {
        let count = usize::from(paths).clamp(1, MAX_PATHS);
        PeerView {
            paths: vec![Path::default(); count],
            instance: None,
            heard_at: 0,
            seq: 0,
            incarnation: 0,
            base: None,
            health: None,
            alive_since: None,
            lost_at: None,
            window: None,
            drifts: false,
            sent: VecDeque::new(),
        }
    }

    /// A heartbeat of ours goes out on every path.
    pub(crate) fn beat(&mut self, now: Time, timing: &Timing) {
        self.sent.push_back(now);
        if self.sent.len() as u64 > timing.misses + 1 {
            self.sent.pop_front();
        }
    }

    /// Takes in a heartbeat. `mine` is (boot, started) of this daemon.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        path: usize,
        datagram: &Datagram,
        beat: &Heartbeat,
        mine: (u128, Time),
        timing: &Timing,
    ) -> Heard {
        let mut heard = Heard { confirmed: false, new_boot: false };
        let Some(slot) = self.paths.get_mut(path) else { return heard };
        let speaker = Instance { boot: datagram.boot, started: datagram.started };
        let words = Echo { boot: datagram.boot, started: datagram.started, sent: beat.sent };
        let newer = slot
            .heard
            .is_none_or(|old| (old.boot, old.started) != (words.boot, words.started) || old.sent < words.sent);
        if newer {
            slot.heard = Some(words);
        }
        let Some(echo) = beat.heard.filter(|echo| (echo.boot, echo.started) == mine && echo.sent <= now) else {
            return heard;
        };
        if self.instance != Some(speaker) {
            let in_time = now - echo.sent <= timing.detection() + timing.heartbeat;
            if !in_time || self.instance.is_some() && echo.sent <= self.heard_at {
                return heard;
            }
            heard.new_boot =
                self.instance.is_some_and(|old| old.boot != speaker.boot) && self.incarnation == datagram.incarnation;
            self.switch_to(speaker);
        }
        let slot = &mut self.paths[path];
        if beat.seq > slot.seq || slot.echoed.is_none() {
            slot.seq = beat.seq;
            slot.heard_at = Some(now);
            slot.echoed = slot.echoed.max(Some(echo.sent));
            self.heard_at = now;
            heard.confirmed = true;
        }
        if beat.seq > self.seq {
            self.seq = beat.seq;
            self.incarnation = datagram.incarnation;
            self.base = Some(beat.base.clone());
            self.health = Some(beat.health);
            self.compare_clocks(now, beat.sent, timing);
        }
        heard
    }

    fn switch_to(&mut self, speaker: Instance) {
        self.instance = Some(speaker);
        self.seq = 0;
        self.base = None;
        self.health = None;
        self.window = None;
        self.drifts = false;
        for path in &mut self.paths {
            path.heard_at = None;
            path.echoed = None;
            path.seq = 0;
        }
    }

    fn compare_clocks(&mut self, now: Time, theirs: Time, timing: &Timing) {
        let Some((now0, theirs0)) = self.window else {
            self.window = Some((now, theirs));
            return;
        };
        let mine = now.saturating_sub(now0);
        if mine < DRIFT_PERIOD {
            return;
        }
        let gap = mine.abs_diff(theirs.saturating_sub(theirs0));
        self.drifts = gap > timing.parts(mine, 1) + timing.detection() / 2;
        self.window = Some((now, theirs));
    }

    /// Until when the path counts as up if nothing more is heard; `None` = it is not confirmed.
    fn up_until(&self, path: usize, timing: &Timing) -> Option<Time> {
        let path = self.paths.get(path)?;
        // More than `misses` were sent since the one that was given back.
        let missed = self.sent.len() as u64 > timing.misses && self.sent.front() > path.echoed.as_ref();
        path.echoed.filter(|_| !missed)?;
        Some(path.heard_at? + timing.detection())
    }

    /// Whether this path works in both directions.
    pub(crate) fn path_up(&self, path: usize, now: Time, timing: &Timing) -> bool {
        self.up_until(path, timing).is_some_and(|until| now <= until)
    }

    /// Until when some path counts as up if nothing more is heard; 0 = none does.
    pub(crate) fn alive_until(&self, timing: &Timing) -> Time {
        (0..self.paths.len()).filter_map(|path| self.up_until(path, timing)).max().unwrap_or(0)
    }

    /// Whether some path works in both directions.
    pub(crate) fn alive(&self, now: Time, timing: &Timing) -> bool {
        now <= self.alive_until(timing) && self.instance.is_some()
    }

    /// What to give back on this path.
    pub(crate) fn echo(&self, path: usize) -> Option<Echo> {
        self.paths.get(path).and_then(|path| path.heard)
    }

    pub(crate) fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// When a confirmed datagram last arrived; 0 = never.
    pub(crate) fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// The store it speaks for; 0 = never heard.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The newest configuration durable at the peer.
    pub(crate) fn base(&self) -> Option<&Config> {
        self.base.as_ref()
    }

    pub(crate) fn health(&self) -> Option<Health> {
        self.health
    }

    /// Whether the clocks run apart.
    pub(crate) fn drifts(&self) -> bool {
        self.drifts
    }
}
