//! Leases: the own right to run, and what was granted to the peer.
//!
//! A lease runs from the moment its request was *sent*, on the owner's clock; the grant runs from the moment it
//! was given, on the grantor's clock, and longer by the fence. So the grantor always outlasts the owner.

use crate::event::Proof;
use crate::mutants::{Mutant, Mutants};
use crate::timing::Timing;
use crate::types::Time;

/// Both sides of the lease of one node.
#[derive(Clone, Debug)]
pub struct Leases {
    /// The own lease runs before this time.
    until: Time,
    /// The peer may execute VMs before this time.
    granted_until: Time,
    /// Why the peer surely runs nothing although the grant still counts.
    proof: Option<Proof>,
}

impl Leases {
    /// At the start of the daemon: no lease, and a grant that an earlier daemon may have given just now.
    pub fn at_start(now: Time, timing: &Timing, mutants: Mutants) -> Leases {
        let grace = if mutants.has(Mutant::NoGrace) { 0 } else { timing.fence_grantor() };
        Leases { until: 0, granted_until: now + grace, proof: None }
    }

    /// Grants the peer a lease now. The reply may be sent after this and not before.
    pub fn grant(&mut self, now: Time, timing: &Timing) {
        self.granted_until = self.granted_until.max(now + timing.fence_grantor());
        self.proof = None;
    }

    /// The peer granted the lease asked for at `sent`, a time of the own clock.
    pub fn granted(&mut self, now: Time, sent: Time, timing: &Timing) {
        if sent <= now {
            self.until = self.until.max(sent + timing.lease);
        }
    }

    /// The peer surely runs nothing of what was granted up to now.
    pub fn prove(&mut self, proof: Proof) {
        self.proof = Some(proof);
    }

    /// Whether the own lease runs.
    pub fn leased(&self, now: Time) -> bool {
        now < self.until
    }

    /// End of the own lease; 0 = none since the start.
    pub fn until(&self) -> Time {
        self.until
    }

    /// Until when the peer may execute VMs if nothing is proven.
    pub fn granted_until(&self) -> Time {
        self.granted_until
    }

    /// What was proven since the last grant.
    pub fn proof(&self) -> Option<Proof> {
        self.proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::SEC;

    #[test]
    fn a_lease_counts_from_the_request_and_a_late_reply_gives_nothing() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(100 * SEC, &timing, Mutants::NONE);
        assert!(!leases.leased(100 * SEC));
        leases.granted(101 * SEC, 100 * SEC, &timing);
        assert!(leases.leased(102 * SEC - 1));
        assert!(!leases.leased(102 * SEC));
        leases.granted(110 * SEC, 101 * SEC, &timing);
        assert!(!leases.leased(110 * SEC));
    }

    #[test]
    fn a_request_from_the_future_gives_nothing() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(0, &timing, Mutants::NONE);
        leases.granted(SEC, 2 * SEC, &timing);
        assert_eq!(leases.until(), 0);
    }

    #[test]
    fn a_restart_counts_as_a_grant_and_a_grant_ends_a_proof() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(100 * SEC, &timing, Mutants::NONE);
        assert_eq!(leases.granted_until(), 100 * SEC + timing.fence_grantor());
        leases.prove(Proof::NewBoot);
        assert_eq!(leases.proof(), Some(Proof::NewBoot));
        leases.grant(101 * SEC, &timing);
        assert_eq!(leases.proof(), None);
        assert_eq!(leases.granted_until(), 101 * SEC + timing.fence_grantor());
    }
}
