//! The clocks of requests: how long a guest request or a change has waited for the peer, and for how long the local store
//! has left a command unanswered.
//!
//! A step of a checkpoint that the disks completed restarts the clocks of what waits for that checkpoint; see
//! [`crate::progress`].
//!
//! Both clocks run in [`Clocks::awake`] time, in which a node that was not scheduled does not age its requests: their
//! answers may be queued. The clock of a request belongs to the request, not to a session: it survives handshakes and
//! sessions, and it stands still while the request waits for anything but the peer.

use crate::event::{Action, Reason, Tuning};
use crate::guest::{State, Ticket, TicketId};
use crate::machine::{Mirror, Phase};
use crate::progress::ProgressReport;
use crate::types::*;

/// Time in nanoseconds for which this node was scheduled, counted from the start of the mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Awake(u64);

impl Awake {
    pub fn since(self, earlier: Awake) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time of the newest tick.
#[derive(Debug)]
pub(crate) struct Clocks {
    ticked: BootTime,
    awake: Awake,
    /// Time of the newest [`Action::PeerStuck`] that the clocks caused.
    stuck_told: Option<Awake>,
    pub progress: ProgressReport,
}

impl Clocks {
    pub fn new(now: BootTime) -> Self {
        Self { ticked: now, awake: Awake::default(), stuck_told: None, progress: ProgressReport::default() }
    }

    /// Time since the newest tick, in nanoseconds. Ticks come every 100 ms: a longer pause means that this node was not
    /// scheduled, so at most a tenth of [`Tuning::stuck`] counts.
    fn elapsed(&self, now: BootTime, tuning: &Tuning) -> u64 {
        now.since(self.ticked).min(tuning.stuck / 10)
    }

    fn tick(&mut self, now: BootTime, tuning: &Tuning) -> u64 {
        let elapsed = self.elapsed(now, tuning);
        self.awake.0 += elapsed;
        self.ticked = now;
        elapsed
    }
}

/// The clock of a guest request or a change: how long it has waited for the peer, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerWait {
    charged: u64,
    /// Time in reconciliations of the present session. It does not count while the session lives, because a reconciliation
    /// that makes progress may take long; it counts when the session ends before the reconciliation has.
    reconciling: u64,
    /// The part of its wait that progress of the peer's store has excused. It never exceeds [`Tuning::progress_limit`].
    excused: u64,
}

impl PeerWait {
    /// The peer's store makes progress: the clock restarts, as long as the excused time stays within `limit` nanoseconds.
    pub fn excuse(&mut self, limit: u64) {
        let part = self.charged.min(limit.saturating_sub(self.excused));
        self.charged -= part;
        self.excused += part;
    }

    fn add(&mut self, cause: Cause, elapsed: u64) {
        match cause {
            Cause::Peer => self.charged += elapsed,
            Cause::Reconciliation => self.reconciling += elapsed,
            Cause::Other => {}
        }
    }

    fn session_ended(&mut self) {
        self.charged += std::mem::take(&mut self.reconciling);
    }

    fn reconciled(&mut self) {
        self.reconciling = 0;
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A session with the peer, its part of a handshake, or its reply.
    Peer,
    Reconciliation,
    /// The local store, another request, or the right to run.
    Other,
}

impl Mirror {
    /// The present time for ages of commands and of requests to the peer.
    pub(crate) fn awake(&self) -> Awake {
        Awake(self.clocks.awake.0 + self.clocks.elapsed(self.now, &self.tuning))
    }

    pub(crate) fn tick_clocks(&mut self) {
        let elapsed = self.clocks.tick(self.now, &self.tuning);
        self.check_storage();
        if self.waits_for_store() {
            // In a handshake or a reconciliation the peer may be waiting for this node.
            self.link.heard = self.awake();
        }
        self.tell_progress();
        self.charge_waits(elapsed);
        self.check_stuck();
    }

    /// Whether the peer is a member or is about to be one.
    fn peer_is_needed(&self) -> bool {
        self.view.is_some_and(|view| view.me && (view.peer || view.ack_peer))
    }

    /// Adds the time since the newest tick to the clocks of the requests that wait for the peer.
    fn charge_waits(&mut self, elapsed: u64) {
        if !self.peer_is_needed() {
            self.each_wait(|wait| *wait = PeerWait::default());
            return;
        }
        // A request that is held waits for the lease, and a peer without space answers when it has space.
        if self.hold || self.link.peer_full {
            return;
        }
        let phase = self.phase_cause();
        let causes: Vec<(TicketId, Cause)> =
            self.tickets.map.iter().map(|(&id, ticket)| (id, self.ticket_cause(id, ticket, phase))).collect();
        for (id, cause) in causes {
            if let Some(ticket) = self.tickets.map.get_mut(&id) {
                ticket.peer_wait.add(cause, elapsed);
            }
        }
        let cause = match self.changes.waits_for_peer() {
            Some(true) => Cause::Peer,
            Some(false) => phase,
            None => Cause::Other,
        };
        self.changes.waits().for_each(|wait| wait.add(cause, elapsed));
    }

    /// What a request waits for that cannot run in this phase.
    fn phase_cause(&self) -> Cause {
        match self.phase {
            Phase::Down if self.link.session.is_none() => Cause::Peer,
            Phase::Handshake if self.handshake.as_ref().is_some_and(|handshake| handshake.sent) => Cause::Peer,
            Phase::Reconcile if !self.waits_for_store() => Cause::Reconciliation,
            _ => Cause::Other,
        }
    }

    fn ticket_cause(&self, id: TicketId, ticket: &Ticket, phase: Cause) -> Cause {
        let asked = match ticket.state {
            // A closed write has no guest that waits.
            _ if ticket.req.is_none() => return Cause::Other,
            State::Queued => false,
            State::Writing { peer, .. } if peer.is_held() => return Cause::Other,
            State::Writing { peer, .. } => peer.is_sent(self.generation),
            State::Reading if self.heals.fetches_for(id) => true,
            State::Reading => return Cause::Other,
            State::Flushing => self.flushes.waits_for_peer(),
        };
        if asked { Cause::Peer } else { phase }
    }

    pub(crate) fn each_wait(&mut self, mut change: impl FnMut(&mut PeerWait)) {
        self.tickets.map.values_mut().for_each(|ticket| change(&mut ticket.peer_wait));
        self.changes.waits().for_each(change);
    }

    /// The session ended: what a reconciliation had cost the requests counts, because they have to wait for another one.
    pub(crate) fn charge_reconciliation(&mut self) {
        self.each_wait(PeerWait::session_ended);
    }

    /// The reconciliation is complete: its time never counts.
    pub(crate) fn forgive_reconciliation(&mut self) {
        self.each_wait(PeerWait::reconciled);
    }

    /// Reports the peer as stuck when a guest request or a change has waited for it for [`Tuning::stuck`], with or without
    /// a session; also when the peer owes a reply in the present session for that long, which ends the session during
    /// resync.
    fn check_stuck(&mut self) {
        if self.link.peer_full || self.view.is_none() {
            return;
        }
        let now = self.awake();
        let longest = self.tickets.map.values().map(|ticket| ticket.peer_wait.charged).max().unwrap_or(0);
        let longest = self.changes.waits().map(|wait| wait.charged).fold(longest, u64::max);
        let owes = self.owes_since().is_some_and(|since| now.since(since) >= self.tuning.stuck);
        if longest < self.tuning.stuck && !owes {
            return;
        }
        if self.peer_is_needed() && self.clocks.stuck_told.is_none_or(|told| now.since(told) >= self.tuning.stuck) {
            self.clocks.stuck_told = Some(now);
            self.out.push(Action::PeerStuck);
        }
        // The target of a resync begins again, also if it was about to become a member.
        if self.phase == Phase::Source && (owes || self.peer_is_needed()) {
            self.disconnect(Reason::Stalled);
        }
    }

    /// Time since which the peer owes this node a message in the present session.
    fn owes_since(&self) -> Option<Awake> {
        self.link.session?;
        let asked = self.link.asks.values().next().map(|open| open.since);
        match self.phase {
            Phase::Reconcile => Some(self.link.heard),
            Phase::Handshake if self.handshake.as_ref().is_some_and(|h| h.sent) => Some(self.link.heard),
            Phase::Source => asked.map(|at| at.max(self.link.heard)),
            _ => asked,
        }
    }

    /// Reports that the local store does not answer when one command has been the oldest unanswered one for
    /// [`Tuning::stuck`] without progress, and that it answers again when it has answered every command of that time.
    ///
    /// The store answers in the order of the commands, syncs aside. A command that becomes the oldest is the next to be
    /// answered, so a long queue that moves is no reason for a report.
    fn check_storage(&mut self) {
        let now = self.awake();
        self.store.watch_oldest(now);
        if self.store.stuck_through.is_none() && self.store.time_without_progress(now) >= self.tuning.stuck {
            self.store.stuck_through = self.store.newest();
            self.out.push(Action::StorageStuck);
        } else if self.store.answered_stuck() {
            self.store.stuck_through = None;
            self.out.push(Action::StorageAnswers);
        }
    }

    /// Whether commands wait for space in the local store, or the oldest command has been unanswered for longer than a healthy store
    /// needs: requests then wait for the store, and the peer may wait for it as well.
    fn waits_for_store(&self) -> bool {
        self.store.waits_for_space() || self.store.oldest_age(self.awake()) >= self.tuning.stuck / 10
    }
}
