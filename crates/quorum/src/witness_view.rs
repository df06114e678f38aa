//! What is known of the witness: whether it answers this node, since when, and which configuration it holds.

use crate::message::WitnessRequestId;
use crate::timing::Timing;
use crate::types::{BootTime, Config, Record};
use dyad_types::Epoch;

/// The witness as this node reaches it directly.
///
/// Invariant: at most one of `up_since` and `lost_since` is set; neither before the first answer or failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct WitnessView {
    /// Since when it answers.
    up_since: Option<BootTime>,
    /// Since when it does not answer.
    lost_since: Option<BootTime>,
    /// Rank of the newest base it sent.
    learned: Option<(u64, Epoch)>,
    /// The read under way: its id and when it was sent.
    pub(crate) read: Option<(WitnessRequestId, BootTime)>,
    /// When the next read is due.
    pub(crate) next_read: BootTime,
    /// The highest [`crate::Record::mark`] of it that was seen, to detect a roll-back.
    pub(crate) seen: u64,
    /// It was found to hold an older record than it once did.
    pub(crate) rolled_back: bool,
    /// It was enrolled and has not had the tie yet: it gets the tie without the waiting times.
    pub(crate) new: bool,
    /// When the tie last returned to a witness.
    pub(crate) last_return: Option<BootTime>,
    /// Requests of the peer on their way to the witness, oldest first.
    pub(crate) relays: Vec<Relay>,
}

/// A request of the peer that this node passed on to the witness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relay {
    /// Id of the request here.
    pub(crate) id: WitnessRequestId,
    /// The path on which it came.
    pub(crate) path: u8,
    /// The id under which the peer waits for the answer.
    pub(crate) peer_id: WitnessRequestId,
}

impl WitnessView {
    /// At the start of the daemon, with the mark in the node's record. The first read is due at once.
    pub(crate) fn at_start(now: BootTime, record: &Record) -> WitnessView {
        WitnessView { next_read: now, seen: record.mark, ..WitnessView::default() }
    }

    /// It gave a usable answer.
    pub(crate) fn answered(&mut self, now: BootTime) {
        self.lost_since = None;
        self.up_since.get_or_insert(now);
    }

    /// Its answer held its newest base.
    pub(crate) fn learned(&mut self, base: &Config) {
        self.learned = Some(base.rank());
    }

    /// It gave no usable answer.
    pub(crate) fn missed(&mut self, now: BootTime) {
        self.up_since = None;
        self.lost_since.get_or_insert(now);
    }

    /// The configuration names another witness: what was known of the former one is void. `new`: the pair had a
    /// configuration before.
    pub(crate) fn replaced(&mut self, now: BootTime, new: bool) {
        let relays = std::mem::take(&mut self.relays);
        *self = WitnessView { new, last_return: self.last_return, relays, next_read: now, ..WitnessView::default() };
    }

    /// Counts a read as unanswered after 3 × [`Timing::vote_timeout`].
    pub(crate) fn expire(&mut self, now: BootTime, timing: &Timing) {
        if self.read.is_some_and(|(_, sent)| now >= sent + 3 * timing.vote_timeout) {
            self.read = None;
            self.missed(now);
            self.next_read = now;
        }
    }

    /// Whether the last request was answered.
    pub(crate) fn up(&self) -> bool {
        self.up_since.is_some()
    }

    /// For how long it has answered without a break.
    pub(crate) fn up_for(&self, now: BootTime) -> Option<u64> {
        self.up_since.map(|since| now.since(since))
    }

    /// For how long it has not answered; `None` = it answers, or was never asked.
    pub(crate) fn lost_for(&self, now: BootTime) -> Option<u64> {
        self.lost_since.map(|since| now.since(since))
    }

    /// Whether it answers and its newest base has this rank.
    pub(crate) fn holds(&self, base: &Config) -> bool {
        self.up() && self.learned == Some(base.rank())
    }
}
