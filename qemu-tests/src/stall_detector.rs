//! Detects pauses of the build machine. A run on a machine that stood still for seconds says little about the product:
//! its
//! nodes are reset by watchdogs that go on counting.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two samples of the clock.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Shortest pause that is reported: shorter ones are normal on a busy machine.
const STALL_REPORT_DELAY: Duration = Duration::from_millis(300);

/// A thread that samples the clock until the detector is dropped.
#[derive(Debug)]
pub struct StallDetector(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl StallDetector {
    /// Starts the thread.
    pub fn start() -> Self {
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::downgrade(&pauses);
        thread::spawn(move || {
            let mut last = Instant::now();
            while let Some(pauses) = told.upgrade() {
                let late = last.elapsed().saturating_sub(SAMPLE_INTERVAL);
                last = Instant::now();
                if late > STALL_REPORT_DELAY {
                    pauses.lock().unwrap_or_else(PoisonError::into_inner).push((last, late));
                }
                drop(pauses);
                thread::sleep(SAMPLE_INTERVAL);
            }
        });
        Self(pauses)
    }

    /// A sentence on every reported pause so far.
    pub fn pauses(&self) -> String {
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses.is_empty() {
            return format!("never for more than {} ms", STALL_REPORT_DELAY.as_millis());
        }
        let pause = |(end, late): &(Instant, Duration)| {
            format!("for {} ms {:.1} s ago", late.as_millis(), end.elapsed().as_secs_f64())
        };
        pauses.iter().map(pause).collect::<Vec<_>>().join(", ")
    }
}
