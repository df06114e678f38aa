//! Measures how busy the build machine is: pauses in which this program did not run, and the share of time in which
//! programs waited for a processor.
//!
//! A failure on an overloaded machine says little about the product, because the watchdogs of the nodes count real
//! time. Both figures are needed: with eleven programs on two cores a node was reset during its boot although no pause
//! was measured.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Interval between two samples of the clock.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Pauses longer than this are reported; shorter ones are normal on a busy machine.
const STALL_REPORT_DELAY: Duration = Duration::from_millis(300);

/// The kernel's pressure stall information for processors (Documentation/accounting/psi.rst).
const CPU_PRESSURE_FILE: &str = "/proc/pressure/cpu";

/// A thread that samples the clock until the detector is dropped.
#[derive(Debug)]
pub struct StallDetector {
    pauses: Arc<Mutex<Vec<(Instant, Duration)>>>,
    start: Instant,
    /// Result of [`cpu_wait_time`] when the detector started.
    cpu_wait_at_start: Option<Duration>,
}

impl StallDetector {
    /// Starts the sampling thread.
    pub fn start() -> Self {
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let watched = Arc::downgrade(&pauses);
        thread::spawn(move || {
            let mut last = Instant::now();
            while let Some(pauses) = watched.upgrade() {
                let late = last.elapsed().saturating_sub(SAMPLE_INTERVAL);
                last = Instant::now();
                if late > STALL_REPORT_DELAY {
                    pauses.lock().unwrap_or_else(PoisonError::into_inner).push((last, late));
                }
                drop(pauses);
                thread::sleep(SAMPLE_INTERVAL);
            }
        });
        Self { pauses, start: Instant::now(), cpu_wait_at_start: cpu_wait_time(&read_pressure()) }
    }

    /// A sentence with the pauses and the share of time in which a program waited for a processor, since the start.
    pub fn summary(&self) -> String {
        let stalls = format!("this machine stood still {}", self.pauses());
        match (self.cpu_wait_at_start, cpu_wait_time(&read_pressure())) {
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

/// Content of [`CPU_PRESSURE_FILE`]; empty on a kernel that has none.
fn read_pressure() -> String {
    fs::read_to_string(CPU_PRESSURE_FILE).unwrap_or_default()
}

/// Time since the machine booted in which at least one task waited for a processor; `None` without the field.
fn cpu_wait_time(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[test]
fn the_total_cpu_wait_time_is_parsed() {
    let text =
        "some avg10=97.79 avg60=98.54 avg300=87.62 total=7398157\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    assert_eq!(cpu_wait_time(text), Some(Duration::from_micros(7_398_157)));
    assert_eq!(cpu_wait_time(""), None);
}
