//! The time profile and the formulas that follow from it. Reasons for each value: `docs/internals/time.md`.

use crate::types::Nanos;

/// One millisecond in nanoseconds.
pub const MS: Nanos = 1_000_000;

/// One second in nanoseconds.
pub const SEC: Nanos = 1_000 * MS;

/// All lengths of time that the quorum uses, in nanoseconds unless said otherwise. Both nodes use the same profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// h: a heartbeat is sent this often on every path.
    pub heartbeat: Nanos,
    /// m: so many missed heartbeats make the peer silent.
    pub misses: u64,
    /// Allowance for scheduling on top of m·h.
    pub jitter: Nanos,
    /// L: a lease runs for this long from the time at which its request was sent.
    pub lease: Nanos,
    /// P: the longest time in which all VMs are frozen and the kernel has confirmed it.
    pub freeze_timeout: Nanos,
    /// T_wd: the period of the hardware watchdog.
    pub watchdog: Nanos,
    /// k: how many periods the watchdog takes to reset. Its proof demands 1.
    pub watchdog_periods: u64,
    /// q: the longest time between the last permitted feed of the watchdog and the end of the lease.
    pub watchdog_tick: Nanos,
    /// ρ in parts per million: how far a clock may be off its nominal rate.
    pub drift_ppm: u64,
    /// Interval between repetitions of an unanswered request for a vote, over datagrams.
    pub retry_interval: Nanos,
    /// After this long without a vote the other acceptor is asked, with a new ballot, where that is allowed. The witness gets
    /// 3 times as long, a vote that waits for VMs to stop 4 times.
    pub vote_timeout: Nanos,
    /// How much later than the lead the other node asks for the removal of a silent peer.
    pub non_lead_delay: Nanos,
    /// How much later a faulty node asks for it.
    pub faulty_delay: Nanos,
    /// How long a node without VMs waits for its peer after a start before it asks for the peer's removal.
    pub cold_start_delay: Nanos,
    /// Interval between reads of the witness while it answers.
    pub witness_poll_interval: Nanos,
    /// Interval between reads of the witness while it does not answer.
    pub witness_retry_interval: Nanos,
    /// The witness must be out of reach of both nodes for this long before the tie is delegated.
    pub delegate_after: Nanos,
    /// The witness must answer for this long before the tie returns to it.
    pub return_after: Nanos,
    /// Least time between two returns of the tie to the witness, so that a witness that flaps costs few decisions.
    pub return_gap: Nanos,
    /// The peer must be heard for this long without a break before it becomes a member again.
    pub readmit_after: Nanos,
    /// The same for a peer that was removed more than three times within `losses_remembered`.
    pub readmit_flapping: Nanos,
    /// A removal of the peer counts for this long.
    pub losses_remembered: Nanos,
    /// A report that the peer is stuck counts for this long. The mirror repeats it every 3 s while it holds.
    pub stuck_report_period: Nanos,
    /// A write of the record that takes longer than this makes the register count as failed until the write is done.
    pub write_timeout: Nanos,
    /// How long a value accepted here, or an abandoned proposal, is left to its proposer to finish.
    pub unfinished_after: Nanos,
}

impl Timing {
    /// The default profile: heartbeat 100 ms × 5, lease 2 s, hardware watchdog 3 s.
    pub fn standard() -> Timing {
        let mut timing = Timing {
            heartbeat: 100 * MS,
            misses: 5,
            jitter: 0,
            lease: 2 * SEC,
            freeze_timeout: 500 * MS,
            watchdog: 3 * SEC,
            watchdog_periods: 1,
            watchdog_tick: 500 * MS,
            drift_ppm: 10_000,
            retry_interval: 250 * MS,
            vote_timeout: SEC,
            non_lead_delay: 300 * MS,
            faulty_delay: 2 * SEC,
            cold_start_delay: 0,
            witness_poll_interval: 5 * SEC,
            witness_retry_interval: 2 * SEC,
            delegate_after: 30 * SEC,
            return_after: 60 * SEC,
            return_gap: 3600 * SEC,
            readmit_after: 5 * SEC,
            readmit_flapping: 60 * SEC,
            losses_remembered: 3600 * SEC,
            stuck_report_period: 8 * SEC,
            write_timeout: 2 * SEC,
            unfinished_after: 2 * SEC,
        };
        timing.cold_start_delay = timing.fence_grantor();
        timing
    }

    /// The fast profile, opt-in: heartbeat 60 ms × 5, lease 1 s, no hardware watchdog in the formula.
    ///
    /// Only for machines where a deadline of the vCPU threads themselves ends execution within `freeze_timeout`.
    pub fn fast() -> Timing {
        let mut timing = Timing {
            heartbeat: 60 * MS,
            lease: SEC,
            freeze_timeout: 50 * MS,
            watchdog: 0,
            watchdog_periods: 0,
            watchdog_tick: 0,
            ..Timing::standard()
        };
        timing.cold_start_delay = timing.fence_grantor();
        timing
    }

    /// D = m·h + jitter: a peer that is not heard for this long is silent.
    pub fn detection(&self) -> Nanos {
        self.misses * self.heartbeat + self.jitter
    }

    /// How long a daemon may take to restart after its kernel closed the data session, before its node is removed.
    ///
    /// Bound from above by the survivor's lease, which the ended daemon granted: also the node that asks later (by
    /// `non_lead_delay`) has two heartbeats for the decision before its lease ends. If the decision takes longer, the
    /// survivor's VMs are frozen until it is made.
    pub fn restart_timeout(&self) -> Nanos {
        let answered = self.non_lead_delay + 3 * self.heartbeat;
        self.lease.saturating_sub(answered).max(self.detection())
    }

    /// F = L + max(P, k·T_wd·(1+ρ) + q): no VM of the lease's holder executes later than this after the lease was requested.
    pub fn fence(&self) -> Nanos {
        let reset = self.watchdog_periods * self.watchdog;
        let reset = if reset == 0 { 0 } else { reset + self.drift_of(reset, 1) + self.watchdog_tick };
        self.lease + self.freeze_timeout.max(reset)
    }

    /// F′ = F·(1+2ρ): what the grantor waits, on its own clock, from its last grant.
    pub fn fence_grantor(&self) -> Nanos {
        self.fence() + self.drift_of(self.fence(), 2)
    }

    /// How far clocks drift apart in `length` at a relative rate of `times`·ρ, rounded up.
    pub fn drift_of(&self, length: Nanos, times: u32) -> Nanos {
        let parts = u128::from(length) * u128::from(self.drift_ppm) * u128::from(times);
        u64::try_from(parts.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Why this profile must not be used, if so.
    pub fn fault(&self) -> Option<&'static str> {
        if self.heartbeat == 0 || self.misses < 2 {
            Some("The heartbeat must be above zero and at least two misses must be allowed.")
        } else if self.lease <= self.detection() {
            Some("The lease must be longer than the detection time.")
        } else if self.drift_ppm > 100_000 {
            Some("A drift bound above ten percent is no bound.")
        } else {
            None
        }
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing::standard()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_starts_a_dead_nodes_vms_after_about_six_seconds() {
        let timing = Timing::default();
        assert_eq!(timing.detection(), 500 * MS);
        assert_eq!(timing.restart_timeout(), 1400 * MS);
        // 2 s + 3 s·1.01 + 0.5 s, then 2 % more.
        assert_eq!(timing.fence(), 5_530 * MS);
        assert_eq!(timing.fence_grantor(), 5_640_600_000);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_fast_profile_starts_them_after_about_one_second() {
        let timing = Timing::fast();
        assert_eq!(timing.detection(), 300 * MS);
        assert_eq!(timing.restart_timeout(), 520 * MS);
        assert_eq!(timing.fence_grantor(), 1_071 * MS);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_grantor_waits_longer_than_the_holder_can_run_with_both_clocks_off() {
        for timing in [Timing::default(), Timing::fast()] {
            // The holder's clock slow by ρ, the grantor's fast by ρ: real lengths.
            let holder = timing.fence() as f64 / 0.99;
            let grantor = timing.fence_grantor() as f64 / 1.01;
            // F already carries (1+ρ) on the reset; the lease part is what the factor 2ρ pays for.
            assert!(grantor * 1.001 >= holder, "{grantor} {holder}");
        }
    }

    #[test]
    fn a_lease_shorter_than_detection_is_refused() {
        let timing = Timing { lease: 100 * MS, ..Timing::default() };
        assert!(timing.fault().is_some());
    }
}
