//! The time profile and the formulas that follow from it. Source: the design page of the quorum, "Time".

use crate::types::Nanos;

/// One millisecond in nanoseconds.
pub const MS: Nanos = 1_000_000;

/// One second in nanoseconds.
pub const SEC: Nanos = 1_000 * MS;

/// All lengths of time the quorum uses, in nanoseconds unless said otherwise. Both nodes use the same profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// h: a heartbeat is sent this often on every path.
    pub heartbeat: Nanos,
    /// m: this many missed heartbeats make the peer silent.
    pub misses: u64,
    /// Allowance for scheduling on top of m·h.
    pub jitter: Nanos,
    /// L: a lease runs this long from the moment its request was sent.
    pub lease: Nanos,
    /// P: how long the software needs at most to freeze all VMs and see it confirmed.
    pub pause: Nanos,
    /// T_wd: the period of the hardware watchdog.
    pub watchdog: Nanos,
    /// k: how many periods the watchdog really takes to reset, measured at install.
    pub watchdog_periods: u64,
    /// q: the tick of the watchdog, the longest time between the last lawful feed and the lapse of the lease.
    pub watchdog_tick: Nanos,
    /// ρ in parts per million: how far a clock may be off its nominal rate.
    pub drift_ppm: u64,
    /// An unanswered ask for a vote is repeated this often.
    pub retry: Nanos,
    /// After this long without a vote another acceptor is asked, with a fresh ballot.
    pub patience: Nanos,
    /// How much later the side that is not preferred asks for the removal of a silent peer.
    pub delay_other: Nanos,
    /// How much later an faulty node asks.
    pub delay_faulty: Nanos,
    /// How long a node that just booted waits for its peer before it asks for its removal.
    pub cold_patience: Nanos,
    /// How often the witness is read while it answers.
    pub witness_poll: Nanos,
    /// How often the witness is tried while it does not answer.
    pub witness_retry: Nanos,
    /// The witness must be out of reach of both nodes for this long before the tie is delegated.
    pub delegate_after: Nanos,
    /// The witness must answer for this long before the tie returns to it.
    pub return_after: Nanos,
    /// Between two returns of the tie to the witness lies at least this much, so that a flapping witness costs few decisions.
    pub return_gap: Nanos,
    /// The peer must be heard for this long without a break before it becomes a member again.
    pub readmit_after: Nanos,
    /// The same for a peer that was lost more than three times within `losses_remembered`.
    pub readmit_flapping: Nanos,
    /// A loss of the peer counts for this long.
    pub losses_remembered: Nanos,
    /// A word that the peer is stuck counts for this long; the mirror repeats it while it holds.
    pub stuck_memory: Nanos,
    /// A write of the record that takes longer than this makes the register count as failed until it is done.
    pub slow_write: Nanos,
    /// The longest time a bare acceptance or an abandoned proposal is left unfinished.
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
            pause: 500 * MS,
            watchdog: 3 * SEC,
            watchdog_periods: 1,
            watchdog_tick: 500 * MS,
            drift_ppm: 10_000,
            retry: 250 * MS,
            patience: SEC,
            delay_other: 300 * MS,
            delay_faulty: 2 * SEC,
            cold_patience: 0,
            witness_poll: 5 * SEC,
            witness_retry: 2 * SEC,
            delegate_after: 30 * SEC,
            return_after: 60 * SEC,
            return_gap: 3600 * SEC,
            readmit_after: 5 * SEC,
            readmit_flapping: 60 * SEC,
            losses_remembered: 3600 * SEC,
            stuck_memory: 8 * SEC,
            slow_write: 2 * SEC,
            unfinished_after: 2 * SEC,
        };
        timing.cold_patience = timing.fence_grantor();
        timing
    }

    /// The fast profile, opt-in: heartbeat 60 ms × 5, lease 1 s, no hardware watchdog in the formula.
    ///
    /// Only for machines where a deadline of the vCPU threads themselves ends execution within `pause`.
    pub fn fast() -> Timing {
        let mut timing = Timing {
            heartbeat: 60 * MS,
            lease: SEC,
            pause: 50 * MS,
            watchdog: 0,
            watchdog_periods: 0,
            watchdog_tick: 0,
            ..Timing::standard()
        };
        timing.cold_patience = timing.fence_grantor();
        timing
    }

    /// D = m·h + jitter: silence this long is called silence.
    pub fn detection(&self) -> Nanos {
        self.misses * self.heartbeat + self.jitter
    }

    /// How long a daemon may be away whose end its kernel told. Whoever then asks for its removal, the preferred side or
    /// the other, has two heartbeats for the answer before the lease lapses that this daemon granted last. A witness that
    /// takes longer costs the survivor's VMs a freeze until it answers.
    pub fn absence(&self) -> Nanos {
        let answered = self.delay_other + 3 * self.heartbeat;
        self.lease.saturating_sub(answered).max(self.detection())
    }

    /// F = L + max(P, k·T_wd·(1+ρ) + q): from the moment a lease was asked for, nothing of its owner executes later than this.
    pub fn fence(&self) -> Nanos {
        let reset = self.watchdog_periods * self.watchdog;
        let reset = if reset == 0 { 0 } else { reset + self.parts(reset, 1) + self.watchdog_tick };
        self.lease + self.pause.max(reset)
    }

    /// F′ = F·(1+2ρ): what the grantor waits, on its own clock, from its last grant.
    pub fn fence_grantor(&self) -> Nanos {
        self.fence() + self.parts(self.fence(), 2)
    }

    /// `times`·ρ of `length`, rounded up.
    pub fn parts(&self, length: Nanos, times: u64) -> Nanos {
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
        assert_eq!(timing.absence(), 1400 * MS);
        // 2 s + 3 s·1.01 + 0.5 s, then 2 % more.
        assert_eq!(timing.fence(), 5_530 * MS);
        assert_eq!(timing.fence_grantor(), 5_640_600_000);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_fast_profile_starts_them_after_about_one_second() {
        let timing = Timing::fast();
        assert_eq!(timing.detection(), 300 * MS);
        assert_eq!(timing.absence(), 520 * MS);
        assert_eq!(timing.fence_grantor(), 1_071 * MS);
        assert_eq!(timing.fault(), None);
    }

    #[test]
    fn the_grantor_waits_longer_than_the_owner_can_run_with_both_clocks_off() {
        for timing in [Timing::default(), Timing::fast()] {
            // Owner's clock slow by ρ, grantor's fast by ρ: real lengths.
            let owner = timing.fence() as f64 / 0.99;
            let grantor = timing.fence_grantor() as f64 / 1.01;
            // F already carries (1+ρ) on the reset; the lease part is what the factor 2ρ pays for.
            assert!(grantor * 1.001 >= owner, "{grantor} {owner}");
        }
    }

    #[test]
    fn a_lease_shorter_than_detection_is_refused() {
        let timing = Timing { lease: 100 * MS, ..Timing::default() };
        assert!(timing.fault().is_some());
    }
}
