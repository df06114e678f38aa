//! The time profile and the formulas that follow from it. Reasons for each value: `docs/internals/time.md`.

use crate::types::Nanos;

/// One millisecond in nanoseconds.
pub const MS: Nanos = 1_000_000;

/// One second in nanoseconds.
pub const SEC: Nanos = 1_000 * MS;

/// The time profile: all durations of the protocol, in nanoseconds. Both nodes use the same profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// h: interval between heartbeats on each path.
    pub heartbeat_interval: Nanos,
    /// m: number of missed heartbeats after which the peer counts as silent.
    pub max_missed_heartbeats: u64,
    /// Allowance for scheduling on top of m·h.
    pub jitter: Nanos,
    /// L: length of a lease, from the time at which its request was sent.
    pub lease_period: Nanos,
    /// P: the longest time in which all VMs are frozen and the kernel has confirmed it.
    pub freeze_timeout: Nanos,
    /// T_wd: the period of the hardware watchdog; 0 = the fence does not rely on one.
    pub watchdog_timeout: Nanos,
    /// k: number of periods without a feed after which the watchdog resets the machine. A proven watchdog has k = 1.
    pub watchdog_periods: u64,
    /// q: allowance for the time between the end of the lease and the last feed of the watchdog.
    pub watchdog_feed_margin: Nanos,
    /// ρ in parts per million: the largest deviation of a clock from its nominal rate.
    pub drift_ppm: u64,
    /// Interval between repetitions of an unanswered request for a vote.
    pub retry_interval: Nanos,
    /// Time without a vote after which the other acceptor is asked with a new ballot, where that is allowed. Multiples
    /// of it: a request to the witness of which no result is reported is repeated after 3 times this time, and a read
    /// of the witness counts as unanswered; a vote that waits for VMs to stop is dropped after 4 times this time.
    pub vote_timeout: Nanos,
    /// Delay with which the node that is not the lead asks for the removal of its peer, so that a cut is decided once.
    pub non_lead_delay: Nanos,
    /// Delay with which a node asks for the removal of a peer that does not answer its mirror, on top of the delays above.
    /// A peer whose own pool does not answer reports that meanwhile: the removal then names the pool, and if the pool of
    /// this node does not answer either, this node does not ask at all.
    pub stuck_delay: Nanos,
    /// Delay with which a faulty node asks for the removal of its peer; it replaces `non_lead_delay`.
    pub faulty_delay: Nanos,
    /// Time after a start for which a node without VMs waits for its peer before it asks for the peer's removal.
    pub cold_start_delay: Nanos,
    /// Interval between reads of the witness while it answers.
    pub witness_poll_interval: Nanos,
    /// Interval between reads of the witness while it does not answer.
    pub witness_retry_interval: Nanos,
    /// Time for which the witness must be out of reach of both nodes before the tie vote moves to the lead.
    pub tie_delegation_delay: Nanos,
    /// Time for which the witness must answer before the tie vote returns to it.
    pub tie_return_delay: Nanos,
    /// Minimum time between two returns of the tie vote to the witness, so that a flapping witness causes few
    /// decisions.
    pub tie_return_interval: Nanos,
    /// Time for which the peer must be heard without a break before it becomes a member again.
    pub readmission_delay: Nanos,
    /// The same for a peer that was removed more than three times within `removal_memory_period`.
    pub flapping_readmission_delay: Nanos,
    /// Time for which a removal of the peer counts.
    pub removal_memory_period: Nanos,
    /// Time for which a report that the peer is stuck counts. The mirror repeats the report every 3 s while it holds.
    pub stuck_report_period: Nanos,
    /// A write of the record that takes longer than this makes the register count as failed until the write is done.
    pub write_timeout: Nanos,
    /// Delay before this node decides again on a value that it accepted, so that the proposer can finish; also the time
    /// for which the peer must be heard before this node makes its own abandoned proposal void.
    pub unfinished_value_delay: Nanos,
}

impl Timing {
    /// The default profile: heartbeat 100 ms × 5, lease 2 s, hardware watchdog 3 s.
    pub fn standard() -> Timing {
        let mut timing = Timing {
            heartbeat_interval: 100 * MS,
            max_missed_heartbeats: 5,
            jitter: 0,
            lease_period: 2 * SEC,
            freeze_timeout: 500 * MS,
            watchdog_timeout: 3 * SEC,
            watchdog_periods: 1,
            watchdog_feed_margin: 500 * MS,
            drift_ppm: 10_000,
            retry_interval: 250 * MS,
            vote_timeout: SEC,
            non_lead_delay: 300 * MS,
            stuck_delay: 500 * MS,
            faulty_delay: 2 * SEC,
            cold_start_delay: 0,
            witness_poll_interval: 5 * SEC,
            witness_retry_interval: 2 * SEC,
            tie_delegation_delay: 30 * SEC,
            tie_return_delay: 60 * SEC,
            tie_return_interval: 3600 * SEC,
            readmission_delay: 5 * SEC,
            flapping_readmission_delay: 60 * SEC,
            removal_memory_period: 3600 * SEC,
            stuck_report_period: 8 * SEC,
            write_timeout: 2 * SEC,
            unfinished_value_delay: 2 * SEC,
        };
        timing.cold_start_delay = timing.grantor_fence_period();
        timing
    }

    /// The fast profile: heartbeat 60 ms × 5, lease 1 s, no hardware watchdog in the formula. No daemon selects it yet.
    ///
    /// Only for machines on which a deadline of the vCPU threads themselves ends execution within `freeze_timeout`.
    pub fn fast() -> Timing {
        let mut timing = Timing {
            heartbeat_interval: 60 * MS,
            lease_period: SEC,
            freeze_timeout: 50 * MS,
            watchdog_timeout: 0,
            watchdog_periods: 0,
            watchdog_feed_margin: 0,
            ..Timing::standard()
        };
        timing.cold_start_delay = timing.grantor_fence_period();
        timing
    }

    /// D = m·h + jitter: time without a heartbeat after which the peer counts as silent.
    pub fn detection_delay(&self) -> Nanos {
        self.max_missed_heartbeats * self.heartbeat_interval + self.jitter
    }

    /// Time that a daemon may take to restart after its kernel closed the data session, before its peer asks for the
    /// removal of its node.
    ///
    /// The upper bound is the lease that the ended daemon granted to its peer: the peer must have removed it before
    /// that lease ends, or its VMs are frozen until the decision is made. Reserved are `non_lead_delay`, one heartbeat
    /// for the age of the lease, and two heartbeats for the decision.
    pub fn restart_timeout(&self) -> Nanos {
        let answered = self.non_lead_delay + 3 * self.heartbeat_interval;
        self.lease_period.saturating_sub(answered).max(self.detection_delay())
    }

    /// F = L + max(P, k·T_wd·(1+ρ) + q): the time after the request of a lease from which on no VM of its holder
    /// executes.
    pub fn fence_period(&self) -> Nanos {
        let reset = self.watchdog_periods * self.watchdog_timeout;
        let reset = if reset == 0 { 0 } else { reset + self.drift_of(reset, 1) + self.watchdog_feed_margin };
        self.lease_period + self.freeze_timeout.max(reset)
    }

    /// F′ = F·(1+2ρ): the time that the grantor waits, on its own clock, from its last grant.
    pub fn grantor_fence_period(&self) -> Nanos {
        self.fence_period() + self.drift_of(self.fence_period(), 2)
    }

    /// The difference between two clocks after `length` at a relative rate of `times`·ρ, rounded up.
    pub fn drift_of(&self, length: Nanos, times: u32) -> Nanos {
        let parts = u128::from(length) * u128::from(self.drift_ppm) * u128::from(times);
        u64::try_from(parts.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// The reason for which this profile must not be used; `None` = it may.
    pub fn fault(&self) -> Option<&'static str> {
        if self.heartbeat_interval == 0 || self.max_missed_heartbeats < 2 {
            Some("The heartbeat must be above zero and at least two misses must be allowed.")
        } else if self.lease_period <= self.detection_delay() {
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
        assert_eq!(timing.detection_delay(), 500 * MS);
        assert_eq!(timing.restart_timeout(), 1400 * MS);
        // 2 s + 3 s·1.01 + 0.5 s, then 2 % more.
        assert_eq!(timing.fence_period(), 5_530 * MS);
        assert_eq!(timing.grantor_fence_period(), 5_640_600_000);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_fast_profile_starts_a_dead_nodes_vms_after_about_one_second() {
        let timing = Timing::fast();
        assert_eq!(timing.detection_delay(), 300 * MS);
        assert_eq!(timing.restart_timeout(), 520 * MS);
        assert_eq!(timing.grantor_fence_period(), 1_071 * MS);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_grantor_waits_as_long_as_the_holder_can_run_with_both_clocks_off_by_rho() {
        for timing in [Timing::default(), Timing::fast()] {
            // Real time, with the holder's clock slow by ρ and the grantor's clock fast by ρ.
            let holder = timing.fence_period() as f64 / 0.99;
            let grantor = timing.grantor_fence_period() as f64 / 1.01;
            // Tolerance 0.1 %: the factor 1+2ρ leaves out a second-order term, 2ρ² = 0.02 %.
            assert!(grantor * 1.001 >= holder, "{grantor} {holder}");
        }
    }

    #[test]
    fn a_lease_shorter_than_detection_is_refused() {
        let timing = Timing { lease_period: 100 * MS, ..Timing::default() };
        assert!(timing.fault().is_some());
    }
}
