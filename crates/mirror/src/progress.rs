//! Progress of checkpoints: a store whose journal is full answers its commands late, although its disks work.
//!
//! A command for which the journal has no room waits until a checkpoint has made room, on a slow disk for longer than
//! [`Tuning::stuck`](crate::Tuning::stuck). Each step of the checkpoint that the disks complete proves that they answer. So
//! it restarts the clock of the command that waits, and the node tells its peer, whose requests may wait for the same
//! checkpoint. A disk that hangs completes no step and is found as before.
//!
//! **Invariants.** Progress excuses one command and one request for at most
//! [`Tuning::progress_limit`](crate::Tuning::progress_limit) in total, so that a store which only ever makes progress is
//! found as well. A node that calls its own store stuck tells no progress.

use crate::clocks::Awake;
use crate::machine::Mirror;
use crate::message::Body;
use crate::types::StoreOp;

/// The progress of this node's store that the peer is to be told.
#[derive(Debug, Default)]
pub(crate) struct ProgressReport {
    /// The number of completed steps, if it was not told yet.
    untold: Option<u64>,
    /// Time of the newest message.
    told: Option<Awake>,
}

/// The progress of the peer's store within the session.
#[derive(Debug, Default)]
pub(crate) struct PeerProgress {
    /// The highest number of completed steps that the peer has told.
    steps: Option<u64>,
    /// Time of the first message since the newest message of another kind.
    since: Option<Awake>,
}

impl PeerProgress {
    /// The peer sent a message that is no progress.
    pub fn other_message(&mut self) {
        self.since = None;
    }
}

impl Mirror {
    pub(crate) fn on_store_progress(&mut self, op: StoreOp, steps: u64) {
        let now = self.awake();
        if self.store.progress(op, now, self.tuning.progress_limit) {
            self.clocks.progress.untold = Some(steps);
            self.tell_progress();
        }
    }

    /// Tells the peer of untold progress, at most every fifteenth of [`Tuning::stuck`](crate::Tuning::stuck). It does so also
    /// when the command is answered: a request of the peer, such as a flush, may need several commands, and the next one may
    /// wait for the next step.
    pub(crate) fn tell_progress(&mut self) {
        let now = self.awake();
        let interval = self.tuning.stuck / 15;
        let report = &mut self.clocks.progress;
        if self.store.stuck_through.is_some() {
            // It would be old when the store answers again.
            report.untold = None;
        }
        let Some(steps) = report.untold else { return };
        if report.told.is_some_and(|told| now.since(told) < interval) {
            return;
        }
        (report.untold, report.told) = (None, Some(now));
        self.send(Body::StoreProgress { steps });
    }

    /// The peer's store has completed checkpoint steps: restarts the clocks of what waits for the peer. A number of steps
    /// that has not grown proves nothing.
    pub(crate) fn on_peer_progress(&mut self, steps: u64) {
        let (now, limit) = (self.awake(), self.tuning.progress_limit);
        let progress = &mut self.link.peer_progress;
        if progress.steps.is_some_and(|known| steps <= known) {
            return;
        }
        progress.steps = Some(steps);
        if now.since(*progress.since.get_or_insert(now)) < limit {
            self.link.heard = now;
        }
        for open in self.link.asks.values_mut().filter(|open| now.since(open.sent) < limit) {
            open.since = now;
        }
        self.each_wait(|wait| wait.excuse(limit));
    }
}
