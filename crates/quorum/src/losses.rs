//! How often the peer was lost lately, and how long it must be heard before it is trusted again.

use crate::timing::Timing;
use crate::types::Time;

/// So many losses within [`Timing::losses_remembered`] are taken for what they look like: a power cut, an update, a cable.
const FORGIVEN: usize = 3;

/// The latest removals of the peer that this daemon has seen, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses([Option<Time>; FORGIVEN + 1]);

impl Losses {
    /// The peer was removed.
    pub(crate) fn note(&mut self, now: Time) {
        self.0.rotate_left(1);
        self.0[FORGIVEN] = Some(now);
    }

    /// Whether a peer that is heard without a break since then may become a member again: soon, so that a pair is not left
    /// unprotected for a minute after each mishap, unless the peer comes and goes. One that was lost for another reason than
    /// silence, such as a disk that hangs, counts from its loss.
    pub(crate) fn may_readmit(&self, alive_since: Time, now: Time, timing: &Timing) -> bool {
        let flaps = self.0[0].is_some_and(|oldest| now < oldest + timing.losses_remembered);
        let after = if flaps { timing.readmit_flapping } else { timing.readmit_after };
        now >= alive_since.max(self.0[FORGIVEN].unwrap_or(0)) + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::SEC;

    #[test]
    fn a_peer_that_comes_and_goes_must_stay_longer() {
        let timing = Timing::standard();
        let mut losses = Losses::default();
        let soon = |losses: &Losses, alive: u64| losses.may_readmit(alive, alive + timing.readmit_after, &timing);
        for n in 1..=3 {
            losses.note(n * SEC);
            assert!(soon(&losses, n * SEC));
        }
        losses.note(4 * SEC);
        assert!(!soon(&losses, 5 * SEC));
        assert!(losses.may_readmit(5 * SEC, 5 * SEC + timing.readmit_flapping, &timing));
        assert!(soon(&losses, SEC + timing.losses_remembered));
    }

    #[test]
    fn a_peer_that_was_never_silent_counts_from_its_loss() {
        let timing = Timing::standard();
        let mut losses = Losses::default();
        losses.note(100 * SEC);
        assert!(!losses.may_readmit(SEC, 104 * SEC, &timing));
        assert!(losses.may_readmit(SEC, 105 * SEC, &timing));
    }
}
