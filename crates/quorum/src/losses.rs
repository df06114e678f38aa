//! How often the peer was removed lately, and for how long it must be heard before it may become a member again.

use crate::timing::Timing;
use crate::types::BootTime;
use std::ops::Range;

/// Up to so many removals within [`Timing::losses_remembered`] count as separate mishaps (a power cut, an update, a cable);
/// one more means that the peer flaps.
const MAX_SEPARATE: usize = 3;

/// The latest removals of the peer that this daemon has seen, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses([Option<BootTime>; MAX_SEPARATE + 1]);

impl Losses {
    /// Records that the peer was removed now.
    pub(crate) fn note(&mut self, now: BootTime) {
        self.0.rotate_left(1);
        self.0[MAX_SEPARATE] = Some(now);
    }

    /// Whether a peer that has been heard without a break for the period `alive`, which ends now, may become a member
    /// again: after [`Timing::readmit_after`], or [`Timing::readmit_flapping`] if it flaps. Counted from its last removal
    /// if that is later: a peer whose disk hung was never silent.
    pub(crate) fn may_readmit(&self, alive: Range<BootTime>, timing: &Timing) -> bool {
        let flaps = self.0[0].is_some_and(|oldest| alive.end < oldest + timing.losses_remembered);
        let after = if flaps { timing.readmit_flapping } else { timing.readmit_after };
        alive.end >= alive.start.max(self.0[MAX_SEPARATE].unwrap_or_default()) + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_peer_that_comes_and_goes_must_stay_longer() {
        let timing = Timing::standard();
        let mut losses = Losses::default();
        let soon = |losses: &Losses, since: BootTime| losses.may_readmit(since..since + timing.readmit_after, &timing);
        for n in 1..=3 {
            losses.note(at(n));
            assert!(soon(&losses, at(n)));
        }
        losses.note(at(4));
        assert!(!soon(&losses, at(5)));
        assert!(losses.may_readmit(at(5)..at(5) + timing.readmit_flapping, &timing));
        assert!(soon(&losses, at(1) + timing.losses_remembered));
    }

    #[test]
    fn a_peer_that_was_never_silent_counts_from_its_loss() {
        let timing = Timing::standard();
        let mut losses = Losses::default();
        losses.note(at(100));
        assert!(!losses.may_readmit(at(1)..at(104), &timing));
        assert!(losses.may_readmit(at(1)..at(105), &timing));
    }
}
