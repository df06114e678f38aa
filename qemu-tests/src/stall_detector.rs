//! Whether the machine below the rig goes on: a run on one that stood still for seconds says little about the product, whose
//! nodes are then reset by watchdogs that know the time.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// A pause of a busy machine that is worth a word.
const STALL_REPORT_DELAY: Duration = Duration::from_millis(300);

/// A thread that looks at the clock until it is dropped.
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

    /// Every long pause so far, for people.
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
