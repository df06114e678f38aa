//! What is known of the witness: whether it answers, since when, and what it has learned.

use crate::timing::Timing;
use crate::types::{Config, Time};

/// The witness as this node reaches it directly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    /// It answers since then.
    up_since: Option<Time>,
    /// It does not answer since then.
    lost_since: Option<Time>,
    /// Rank of the newest base it told.
    learned: Option<(u64, u64)>,
    /// The read under way: its id and when it was sent.
    pub(crate) read: Option<(u64, Time)>,
    /// When the next read is due.
    pub(crate) next_read: Time,
    /// The highest record count seen, to find a rolled-back witness.
    pub(crate) seen: u64,
    /// It was found to have forgotten.
    pub(crate) rolled_back: bool,
}

impl Reach {
    /// At the start of the daemon, with the count its record holds.
    pub(crate) fn at_start(now: Time, seen: u64) -> Reach {
        Reach { next_read: now, seen, ..Reach::default() }
    }

    /// It gave a usable answer.
    pub(crate) fn answered(&mut self, now: Time) {
        self.lost_since = None;
        self.up_since.get_or_insert(now);
    }

    /// It told its newest base.
    pub(crate) fn told(&mut self, base: &Config) {
        self.learned = Some(base.rank());
    }

    /// It gave none.
    pub(crate) fn missed(&mut self, now: Time) {
        self.up_since = None;
        self.lost_since.get_or_insert(now);
    }

    /// Another witness now: all that was known is void.
    pub(crate) fn replaced(&mut self, now: Time) {
        *self = Reach::at_start(now, 0);
    }

    /// A read that nobody answered and nobody gave up.
    pub(crate) fn expire(&mut self, now: Time, timing: &Timing) {
        if self.read.is_some_and(|(_, sent)| now >= sent + 3 * timing.patience) {
            self.read = None;
            self.missed(now);
            self.next_read = now;
        }
    }

    /// Whether the last ask was answered.
    pub(crate) fn up(&self) -> bool {
        self.up_since.is_some()
    }

    /// How long it answers without a break.
    pub(crate) fn up_for(&self, now: Time) -> Option<u64> {
        self.up_since.map(|since| now.saturating_sub(since))
    }

    /// How long it does not answer; `None` = it does, or was never tried.
    pub(crate) fn lost_for(&self, now: Time) -> Option<u64> {
        self.lost_since.map(|since| now.saturating_sub(since))
    }

    /// Whether it answered and holds exactly this base.
    pub(crate) fn holds(&self, base: &Config) -> bool {
        self.up() && self.learned == Some(base.rank())
    }
}
