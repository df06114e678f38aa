//! Detects what a build machine withholds from the nodes on it: pauses, and processors that are busy with other work.
//!
//! A run on such a machine says little about the product: the watchdogs of its nodes go on counting. With eleven
//! programs on two cores a node was reset during a boot, and no pause was seen.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two samples of the clock.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Shortest pause that is reported: shorter ones are normal on a busy machine.
const STALL_REPORT_DELAY: Duration = Duration::from_millis(300);

/// The kernel's account of the time in which at least one task waited for a processor (Documentation/accounting/psi.rst).
const PRESSURE: &str = "/proc/pressure/cpu";

/// A thread that samples the clock until the detector is dropped.
#[derive(Debug)]
pub struct StallDetector {
    pauses: Arc<Mutex<Vec<(Instant, Duration)>>>,
    start: Instant,
    /// What [`waited`] said at the start.
    waited: Option<Duration>,
}

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
        Self { pauses, start: Instant::now(), waited: waited(&read_pressure()) }
    }

    /// One sentence on the build machine since the start.
    pub fn summary(&self) -> String {
        let stalls = format!("this machine stood still {}", self.pauses());
        match (self.waited, waited(&read_pressure())) {
            (Some(before), Some(now)) => {
                let share = now.saturating_sub(before).as_secs_f64() / self.start.elapsed().as_secs_f64();
                format!("{stalls}; in {:.0} % of the time a program waited for a processor", share * 100.0)
            }
            _ => stalls,
        }
    }

    fn pauses(&self) -> String {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses.is_empty() {
            return format!("never for more than {} ms", STALL_REPORT_DELAY.as_millis());
        }
        let pause = |(end, late): &(Instant, Duration)| {
            format!("for {} ms {:.1} s ago", late.as_millis(), end.elapsed().as_secs_f64())
        };
        pauses.iter().map(pause).collect::<Vec<_>>().join(", ")
    }
}

/// Empty on a kernel without this account.
fn read_pressure() -> String {
    fs::read_to_string(PRESSURE).unwrap_or_default()
}

/// For how long at least one task has waited for a processor since the machine booted.
fn waited(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[test]
fn the_pressure_is_read() {
    let text =
        "some avg10=97.79 avg60=98.54 avg300=87.62 total=7398157\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    assert_eq!(waited(text), Some(Duration::from_micros(7_398_157)));
    assert_eq!(waited(""), None);
}
