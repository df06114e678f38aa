//! The witness as this node knows it: whether it answers this node, since when, and which configuration it holds.

use crate::message::WitnessRequestId;
use crate::timing::Timing;
use crate::types::{AcceptorRecord, BootTime, Config};
use dyad_types::Epoch;

/// The witness as this node knows it from its own requests.
///
/// Invariant: at most one of `up_since` and `lost_since` is set; neither before the first answer or failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct WitnessState {
    /// Start of the time in which it has answered without a break.
    up_since: Option<BootTime>,
    /// Start of the time in which it has not answered.
    lost_since: Option<BootTime>,
    /// [`Config::rank`] of its base, from its newest answer to a read.
    learned: Option<(u64, Epoch)>,
    /// Id and time of the read that is not answered yet.
    pub(crate) read: Option<(WitnessRequestId, BootTime)>,
    /// Time at which the next read is due.
    pub(crate) next_read: BootTime,
    /// The highest [`crate::AcceptorRecord::witness_changes`] of it that this node knows, to detect a roll-back.
    pub(crate) witness_changes: u64,
    /// It has refused a request because its record is older than this node knows.
    pub(crate) rolled_back: bool,
    /// It was enrolled while the pair existed and has not had the tie yet: it gets the tie without the waiting times.
    pub(crate) new: bool,
    /// Time at which the tie last returned to a witness, except to a new one.
    pub(crate) last_return: Option<BootTime>,
    /// Requests of the peer that were passed on to the witness and are not answered yet, oldest first.
    pub(crate) relayed_for_peer: Vec<Relay>,
}

/// A request of the peer that this node passed on to the witness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relay {
    /// This node's id of the request.
    pub(crate) id: WitnessRequestId,
    /// The path on which the peer sent it.
    pub(crate) path: u8,
    /// The peer's id of the request.
    pub(crate) peer_id: WitnessRequestId,
}

impl WitnessState {
    /// The state at the start of the daemon, with the number of witness changes in the node's record. The first read is
    /// due at once.
    pub(crate) fn at_start(now: BootTime, record: &AcceptorRecord) -> WitnessState {
        WitnessState { next_read: now, witness_changes: record.witness_changes, ..WitnessState::default() }
    }

    /// Records a usable answer.
    pub(crate) fn answered(&mut self, now: BootTime) {
        self.lost_since = None;
        self.up_since.get_or_insert(now);
    }

    /// Records the base that an answer to a read contained.
    pub(crate) fn learned(&mut self, base: &Config) {
        self.learned = Some(base.rank());
    }

    /// Records that a request got no usable answer.
    pub(crate) fn missed(&mut self, now: BootTime) {
        self.up_since = None;
        self.lost_since.get_or_insert(now);
    }

    /// Forgets the former witness: the configuration names another one, or another store of it. `new`: the pair had a
    /// configuration before, so this witness was enrolled now.
    pub(crate) fn replaced(&mut self, now: BootTime, new: bool) {
        let relayed_for_peer = std::mem::take(&mut self.relayed_for_peer);
        *self = WitnessState {
            new,
            last_return: self.last_return,
            relayed_for_peer,
            next_read: now,
            ..WitnessState::default()
        };
    }

    /// Counts a read as unanswered after 3 × [`Timing::vote_timeout`].
    pub(crate) fn expire(&mut self, now: BootTime, timing: &Timing) {
        if self.read.is_some_and(|(_, sent)| now >= sent + 3 * timing.vote_timeout) {
            self.read = None;
            self.missed(now);
            self.next_read = now;
        }
    }

    /// Whether it answers this node.
    pub(crate) fn up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Nanoseconds for which it has answered without a break; `None` = it does not answer.
    pub(crate) fn up_for(&self, now: BootTime) -> Option<u64> {
        self.up_since.map(|since| now.since(since))
    }

    /// Nanoseconds for which it has not answered; `None` = it answers, or has neither answered nor failed yet.
    pub(crate) fn lost_for(&self, now: BootTime) -> Option<u64> {
        self.lost_since.map(|since| now.since(since))
    }

    /// Whether it answers and holds this configuration as its base.
    pub(crate) fn holds(&self, base: &Config) -> bool {
        self.up() && self.learned == Some(base.rank())
    }
}
