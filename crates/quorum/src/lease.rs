//! The lease that this node holds, and the grant that it gave to its peer.
//!
//! A lease runs for L from the time at which its request was *sent*, on the clock of its holder, which executes no VM
//! later than F after that time. The grant runs for F′ from the time at which it was given, on the clock of the
//! grantor. F′ = F·(1+2ρ) covers two clocks that are off by ρ (`docs/internals/time.md`), so the grant outlasts the
//! holder's VMs.

use crate::event::Proof;
use crate::mutants::{Mutant, Mutants};
use crate::timing::Timing;
use crate::types::BootTime;

/// The lease that this node holds, and the grant that it gave to its peer.
#[derive(Clone, Debug)]
pub struct Leases {
    /// End of the lease of this node.
    until: BootTime,
    /// Time until which the peer may execute VMs, unless `proof` is set.
    granted_until: BootTime,
    /// Evidence, newer than the newest grant, that the peer runs no VM.
    proof: Option<Proof>,
}

/// The time at which a heartbeat of this node was sent.
#[derive(Clone, Copy, Debug)]
pub struct SentAt(pub BootTime);

impl Leases {
    /// The state at the start of the daemon: no lease. An earlier daemon may have granted one just before, so a grant
    /// is assumed that runs for F′.
    pub fn at_start(now: BootTime, timing: &Timing, mutants: Mutants) -> Leases {
        let grace = if mutants.has(Mutant::NoGrace) { 0 } else { timing.grantor_fence_period() };
        Leases { until: BootTime::ZERO, granted_until: now + grace, proof: None }
    }

    /// Records that the peer is granted a lease now, and voids the proof. Called before the grant is sent.
    pub fn grant(&mut self, now: BootTime, timing: &Timing) {
        self.granted_until = self.granted_until.max(now + timing.grantor_fence_period());
        self.proof = None;
    }

    /// Extends the lease of this node: the peer granted it for the heartbeat that was sent at `sent`. A time in the
    /// future is ignored.
    pub fn renew(&mut self, now: BootTime, SentAt(sent): SentAt, timing: &Timing) {
        if sent <= now {
            self.until = self.until.max(sent + timing.lease_period);
        }
    }

    /// Records evidence that the peer runs no VM under any grant given so far.
    pub fn record_proof(&mut self, proof: Proof) {
        self.proof = Some(proof);
    }

    /// Whether this node holds a lease at `now`.
    pub fn leased(&self, now: BootTime) -> bool {
        now < self.until
    }

    /// End of the lease of this node; 0 = none since the start.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// Time until which the peer may execute VMs if no proof is recorded.
    pub fn granted_until(&self) -> BootTime {
        self.granted_until
    }

    /// The proof recorded since the newest grant.
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
    fn a_restart_counts_as_a_grant_and_a_grant_voids_a_proof() {
        let timing = Timing::default();
        let mut leases = Leases::at_start(at(100), &timing, Mutants::NONE);
        assert_eq!(leases.granted_until(), at(100) + timing.grantor_fence_period());
        leases.record_proof(Proof::NewBoot);
        assert_eq!(leases.proof(), Some(Proof::NewBoot));
        leases.grant(at(101), &timing);
        assert_eq!(leases.proof(), None);
        assert_eq!(leases.granted_until(), at(101) + timing.grantor_fence_period());
    }
}
