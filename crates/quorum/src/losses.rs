//! How often the peer was lost lately, and how long it must be heard before it is trusted again.

use crate::timing::Timing;
use crate::types::{Nanos, Time};

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

    /// How long the peer must be heard without a break before it becomes a member again: briefly, so that a pair is not
    /// left unprotected for a minute after each mishap, unless it comes and goes.
    pub(crate) fn readmit_after(&self, now: Time, timing: &Timing) -> Nanos {
        let flaps = self.0[0].is_some_and(|oldest| now < oldest + timing.losses_remembered);
        if flaps { timing.readmit_flapping } else { timing.readmit_after }
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
        for n in 0..3 {
            losses.note(n * SEC);
            assert_eq!(losses.readmit_after(n * SEC, &timing), timing.readmit_after);
        }
        losses.note(3 * SEC);
        assert_eq!(losses.readmit_after(3 * SEC, &timing), timing.readmit_flapping);
        assert_eq!(losses.readmit_after(timing.losses_remembered, &timing), timing.readmit_after);
    }
}
