//! Leases: this node's own, and what it granted to the peer.
//!
//! A lease runs for L from the time at which its request was *sent*, on the clock of its holder. The grant runs for F′ from
//! the time at which it was given, on the clock of the grantor. F′ is longer than L even if both clocks are off by ρ
//! (`docs/internals/time.md`), so the grantor waits longer than the holder can run.

use crate::event::Proof;
use crate::mutants::{Mutant, Mutants};
use crate::timing::Timing;
use crate::types::BootTime;

/// The lease of this node, and the lease that it granted.
#[derive(Clone, Debug)]
pub struct Leases {
    /// The lease of this node runs before this time.
    until: BootTime,
    /// The peer may execute VMs before this time.
    granted_until: BootTime,
    /// Proof that the peer runs nothing although the grant has not run out.
    proof: Option<Proof>,
}

/// When a heartbeat of this node was sent.
#[derive(Clone, Copy, Debug)]
pub struct SentAt(pub BootTime);

impl Leases {
    /// At the start of the daemon: no lease. An earlier daemon may have granted one just before, so the grant runs for F′.
    pub fn at_start(now: BootTime, timing: &Timing, mutants: Mutants) -> Leases {
        let grace = if mutants.has(Mutant::NoGrace) { 0 } else { timing.fence_grantor() };
        Leases { until: BootTime::ZERO, granted_until: now + grace, proof: None }
    }

    /// Notes that the peer is granted a lease now. Called before the grant is sent. Voids the proof.
    pub fn grant(&mut self, now: BootTime, timing: &Timing) {
        self.granted_until = self.granted_until.max(now + timing.fence_grantor());
        self.proof = None;
    }

    /// The peer granted the lease that the heartbeat sent at `sent` requested.
    pub fn renew(&mut self, now: BootTime, SentAt(sent): SentAt, timing: &Timing) {
        if sent <= now {
            self.until = self.until.max(sent + timing.lease);
        }
    }

    /// The peer runs nothing under any grant up to now.
    pub fn record_proof(&mut self, proof: Proof) {
        self.proof = Some(proof);
    }

    /// Whether the lease of this node runs.
    pub fn leased(&self, now: BootTime) -> bool {
        now < self.until
    }

    /// End of the lease of this node; 0 = none since the start.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// Until when the peer may execute VMs if no proof is recorded.
    pub fn granted_until(&self) -> BootTime {
        self.granted_until
    }

    /// The proof recorded since the last grant.
    pub fn proof(&self) -> Option<Proof> {
        self.proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_lease_counts_from_the_request_and_a_late_reply_gives_nothing() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(at(100), &timing, Mutants::NONE);
        assert!(!leases.leased(at(100)));
        leases.renew(at(101), SentAt(at(100)), &timing);
        assert!(leases.leased(at(102) - 1));
        assert!(!leases.leased(at(102)));
        leases.renew(at(110), SentAt(at(101)), &timing);
        assert!(!leases.leased(at(110)));
    }

    #[test]
    fn a_request_from_the_future_gives_nothing() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(BootTime::ZERO, &timing, Mutants::NONE);
        leases.renew(at(1), SentAt(at(2)), &timing);
        assert_eq!(leases.until(), BootTime::ZERO);
    }

    #[test]
    fn a_restart_counts_as_a_grant_and_a_grant_ends_a_proof() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(at(100), &timing, Mutants::NONE);
        assert_eq!(leases.granted_until(), at(100) + timing.fence_grantor());
        leases.record_proof(Proof::NewBoot);
        assert_eq!(leases.proof(), Some(Proof::NewBoot));
        leases.grant(at(101), &timing);
        assert_eq!(leases.proof(), None);
        assert_eq!(leases.granted_until(), at(101) + timing.fence_grantor());
    }
}
