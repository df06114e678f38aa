//! How long a service that ended waits for its next start.

use std::time::Duration;

const FIRST_RESTART_DELAY: Duration = Duration::from_millis(100);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(30);
/// A run of this length clears what happened before.
const STABLE_RUN_PERIOD: Duration = Duration::from_secs(60);

/// Doubles from 100 ms to 30 s while runs are short.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    short_runs: u32,
}

impl Backoff {
    /// The service ended after `run`. Returns the pause before its next start.
    pub fn ended(&mut self, run: Duration) -> Duration {
        if run >= STABLE_RUN_PERIOD {
            self.short_runs = 0;
        }
        let pause = FIRST_RESTART_DELAY.saturating_mul(1 << self.short_runs.min(16)).min(MAX_RESTART_DELAY);
        self.short_runs += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.ended(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
    }

    #[test]
    fn a_steady_run_clears_the_past() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.ended(Duration::ZERO);
        }
        assert_eq!(backoff.ended(STABLE_RUN_PERIOD), FIRST_RESTART_DELAY);
        assert_eq!(backoff.ended(Duration::ZERO), FIRST_RESTART_DELAY * 2);
    }
}
