//! The delay before a service that ended is started again.

use std::time::Duration;

/// Delay after the first short run; it doubles with each further one. After a stable run there is no delay: the peer waits
/// for a restarted `dyad-core` for little more than a second (`Timing::restart_timeout` of `dyad-quorum`).
const FIRST_RESTART_DELAY: Duration = Duration::from_millis(100);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(30);
/// Run time after which a service counts as stable: it is started again at once.
const STABLE_RUN_PERIOD: Duration = Duration::from_secs(60);

/// The restart delay of one service: none after a stable run, 100 ms after the first short run, doubled after each further
/// one, at most 30 s.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    /// Number of runs since the last stable one.
    short_runs: u32,
}

impl Backoff {
    /// Counts a run that lasted for `run`. Returns the delay before the next start.
    pub fn ended(&mut self, run: Duration) -> Duration {
        if run >= STABLE_RUN_PERIOD {
            self.short_runs = 0;
            return Duration::ZERO;
        }
        let delay = FIRST_RESTART_DELAY.saturating_mul(1 << self.short_runs.min(16)).min(MAX_RESTART_DELAY);
        self.short_runs += 1;
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..12).map(|_| backoff.ended(Duration::ZERO).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
    }

    #[test]
    fn a_stable_run_resets_the_delay() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.ended(Duration::ZERO);
        }
        assert_eq!(backoff.ended(STABLE_RUN_PERIOD), Duration::ZERO);
        assert_eq!(backoff.ended(Duration::ZERO), FIRST_RESTART_DELAY);
        assert_eq!(backoff.ended(Duration::ZERO), FIRST_RESTART_DELAY * 2);
    }
}
