//! The latest removals of the peer, and the time for which it must be heard before it may become a member again.

use crate::timing::Timing;
use crate::types::BootTime;
use std::ops::Range;

/// Maximum number of removals within [`Timing::removal_memory_period`] that count as separate faults (a power cut, an
/// update, a cable). With one removal more, the peer counts as flapping.
const MAX_NON_FLAPPING_REMOVALS: usize = 3;

/// The latest removals of the peer that this daemon has seen, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemovalHistory([Option<BootTime>; MAX_NON_FLAPPING_REMOVALS + 1]);

impl RemovalHistory {
    /// Adds a removal of the peer.
    pub(crate) fn add(&mut self, now: BootTime) {
        self.0.rotate_left(1);
        self.0[MAX_NON_FLAPPING_REMOVALS] = Some(now);
    }

    /// Whether a peer that has been heard without a break for the period `alive`, which ends now, may become a member
    /// again: after [`Timing::readmission_delay`], or [`Timing::flapping_readmission_delay`] if it flaps. The time
    /// counts from the last removal if that is later than the beginning of `alive`, because a peer that was removed for
    /// a hanging disk was never silent.
    pub(crate) fn may_readmit(&self, alive: Range<BootTime>, timing: &Timing) -> bool {
        let flaps = self.0[0].is_some_and(|oldest| alive.end < oldest + timing.removal_memory_period);
        let after = if flaps { timing.flapping_readmission_delay } else { timing.readmission_delay };
        alive.end >= alive.start.max(self.0[MAX_NON_FLAPPING_REMOVALS].unwrap_or_default()) + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_flapping_peer_must_be_heard_for_longer() {
        let timing = Timing::standard();
        let mut removals = RemovalHistory::default();
        let after_5_s = |removals: &RemovalHistory, since: BootTime| {
            removals.may_readmit(since..since + timing.readmission_delay, &timing)
        };
        for n in 1..=3 {
            removals.add(at(n));
            assert!(after_5_s(&removals, at(n)));
        }
        removals.add(at(4));
        assert!(!after_5_s(&removals, at(5)));
        assert!(removals.may_readmit(at(5)..at(5) + timing.flapping_readmission_delay, &timing));
        assert!(after_5_s(&removals, at(1) + timing.removal_memory_period));
    }

    #[test]
    fn the_time_of_a_peer_that_was_never_silent_counts_from_its_removal() {
        let timing = Timing::standard();
        let mut removals = RemovalHistory::default();
        removals.add(at(100));
        assert!(!removals.may_readmit(at(1)..at(104), &timing));
        assert!(removals.may_readmit(at(1)..at(105), &timing));
    }
}
