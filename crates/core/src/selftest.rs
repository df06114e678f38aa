//! The watchdog test: proves that the watchdog resets this node in time when it is not fed. It runs at the end of setup.
//!
//! Every 100 ms the node writes to a file for how long it has not fed the watchdog, until it is reset. The next boot reads
//! the last number, which is the time until the reset. Without this proof the other node starts the VMs of this one only
//! with other evidence that this node runs none.
//!
//! If the disk stalls, the last number is too old, so a reset that seems too early may have been in time: such a test is
//! repeated once.

use crate::clock;
use crate::init::{self, InitError};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Period of the watchdog that fencing relies on, in seconds.
pub const PERIOD_S: u64 = 3;
/// Allowance beyond one period for the time until the reset, in milliseconds: the steps of 100 ms and the write of the
/// number.
const LATE_RESET_PERIOD_MS: u64 = 500;
/// Lower bound of the time until the reset, in milliseconds: the period less 1 s, the granularity of the device, less 250
/// ms, the greatest age of the last feed. An earlier reset had another cause, or the number is too old.
const EARLIEST_RESET_DELAY_MS: u64 = PERIOD_S * 1000 - 1250;
/// Identity of the kernel's software watchdog. It stops together with the kernel, so fencing cannot rely on it.
const SOFTWARE_WATCHDOG_IDENTITY: &str = "Software Watchdog";
/// Longest time that a test waits for the reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(4 * PERIOD_S);

/// The file of a running test; copied as the proof if the test succeeds.
#[derive(Debug, Serialize, Deserialize)]
struct TestNote {
    /// The kernel's id of the boot in which the test runs, in hexadecimal.
    boot: String,
    /// The watchdog's identity, as the kernel reports it.
    watchdog: String,
    /// Time since the last feed, in milliseconds.
    unfed_ms: u64,
    /// This test is the repetition of one whose result was not certain.
    #[serde(default)]
    repeated: bool,
}

/// The outcome of a test that a reset or an end of the daemon interrupted.
#[derive(Debug, PartialEq, Eq)]
pub struct SelfTestOutcome {
    /// One sentence for the timeline.
    pub text: String,
    /// The result is not certain: the test must be run again, before VMs run on this node.
    pub repeat: bool,
}

/// Reasons for which a test did not end with a reset. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The watchdog is the kernel's software watchdog, on which fencing cannot rely.
    #[error("This node has only the kernel's software watchdog, which stops together with a hanging kernel.")]
    SoftwareWatchdog,
    /// The note of the test cannot be written.
    #[error("The state partition cannot be written: {error}.")]
    Write { path: PathBuf, error: io::Error },
    /// The period could not be set through init.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The device has set another period than the one used for fencing.
    #[error("The watchdog knows periods of {granted_s} s, not of {PERIOD_S} s; it is not relied upon.")]
    Period {
        /// The period that the device granted, in seconds.
        granted_s: u64,
    },
    /// No reset came within [`RESET_TIMEOUT`].
    #[error("The watchdog did not reset this node within {} s: it is not relied upon.", RESET_TIMEOUT.as_secs())]
    NoReset,
}

/// Path of the proof, which survives restarts.
fn proof_path(state: &Path) -> PathBuf {
    state.join("watchdog-proof.json")
}

/// Whether a test has shown that the watchdog with this identity resets this node in time.
pub fn is_proven(state: &Path, watchdog: &str) -> bool {
    let note = std::fs::read(proof_path(state)).ok().and_then(|text| serde_json::from_slice::<TestNote>(&text).ok());
    note.is_some_and(|note| note.watchdog == watchdog)
}

fn test_path(state: &Path) -> PathBuf {
    state.join("watchdog-test.json")
}

/// Judges the test that was under way when this node was reset or this daemon ended, and stores the proof if the watchdog
/// reset the node in time. Called at the start of the daemon. `None` = no test was under way.
pub fn conclude(state: &Path) -> Option<SelfTestOutcome> {
    let text = std::fs::read(test_path(state)).ok()?;
    let note: Option<TestNote> = serde_json::from_slice(&text).ok();
    let mut repeat = false;
    let text = match note {
        Some(note) if note.boot == boot() => "The watchdog test was interrupted.".to_owned(),
        Some(note) if note.unfed_ms < EARLIEST_RESET_DELAY_MS => {
            repeat = !note.repeated;
            format!("This node restarted {} ms into the watchdog test, too soon to be its work.", note.unfed_ms)
        }
        Some(note) if note.unfed_ms <= PERIOD_S * 1000 + LATE_RESET_PERIOD_MS => {
            match dyad_atomic_file::replace(&proof_path(state), &text) {
                Ok(()) => format!("The watchdog reset this node within {} ms.", note.unfed_ms),
                Err(e) => format!("The proof of the watchdog cannot be written: {e}."),
            }
        }
        Some(note) => {
            format!("The watchdog took more than {} ms to reset this node: it is not relied upon.", note.unfed_ms)
        }
        None => "The note of the watchdog test is damaged; repeat the test.".to_owned(),
    };
    let _ = std::fs::remove_file(test_path(state));
    Some(SelfTestOutcome { text, repeat })
}

/// One test of the watchdog: it is not fed any more, and must reset this node.
#[derive(Debug)]
pub struct WatchdogTest {
    /// Folder of the test's note.
    pub state: PathBuf,
    /// Folder of the socket of `dyad-init`.
    pub run: PathBuf,
    /// The watchdog's identity, as the kernel reports it.
    pub watchdog: String,
    /// This test is the repetition of one whose result was not certain.
    pub repeated: bool,
}

impl WatchdogTest {
    /// Waits for the reset by the watchdog, which the caller has stopped feeding. No VM may run on this node.
    ///
    /// # Errors
    /// Always: it returns only when no reset came.
    pub fn run(self) -> Result<Infallible, SelfTestError> {
        if self.watchdog == SOFTWARE_WATCHDOG_IDENTITY {
            return Err(SelfTestError::SoftwareWatchdog);
        }
        // Written before the time is measured: the next boot must know whether this test was the repetition, also if the
        // disk stalls from now on.
        self.write(0)?;
        let granted = init::watchdog_period(&self.run, PERIOD_S)?;
        if granted != PERIOD_S {
            let _ = std::fs::remove_file(test_path(&self.state));
            return Err(SelfTestError::Period { granted_s: granted });
        }
        let since = Instant::now();
        while since.elapsed() < RESET_TIMEOUT {
            self.write(since.elapsed().as_millis() as u64)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = std::fs::remove_file(test_path(&self.state));
        Err(SelfTestError::NoReset)
    }

    fn write(&self, unfed_ms: u64) -> Result<(), SelfTestError> {
        let note = TestNote { boot: boot(), watchdog: self.watchdog.clone(), unfed_ms, repeated: self.repeated };
        let bytes = serde_json::to_vec(&note).expect("numbers and texts have a JSON form");
        let path = test_path(&self.state);
        dyad_atomic_file::replace(&path, &bytes).map_err(|error| SelfTestError::Write { path, error })
    }
}

fn boot() -> String {
    format!("{:032x}", clock::boot_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(dir: &Path, boot: &str, unfed_ms: u64) {
        leave_note(dir, &TestNote { boot: boot.into(), watchdog: "i6300".into(), unfed_ms, repeated: false });
    }

    fn leave_note(dir: &Path, note: &TestNote) {
        std::fs::write(test_path(dir), serde_json::to_vec(note).unwrap()).unwrap();
    }

    #[test]
    fn a_test_that_showed_nothing_is_repeated_once() {
        let dir = tempfile::tempdir().unwrap();
        let conclude = || conclude(dir.path()).unwrap();
        leave(dir.path(), "another", 462);
        assert!(conclude().repeat, "the numbers may be late");
        let note = TestNote { boot: "another".into(), watchdog: "i6300".into(), unfed_ms: 462, repeated: true };
        leave_note(dir.path(), &note);
        let verdict = conclude();
        assert!(!verdict.repeat && verdict.text.contains("too soon"), "{verdict:?}");
        for (boot, unfed_ms) in [(boot(), 462), ("another".into(), 2_900), ("another".into(), 9_000)] {
            leave(dir.path(), &boot, unfed_ms);
            assert!(!conclude().repeat, "{unfed_ms}");
        }
        // Written by a version that knew of no repetition.
        std::fs::write(test_path(dir.path()), br#"{"boot":"x","watchdog":"i6300","unfed_ms":1}"#).unwrap();
        assert!(conclude().repeat);
    }

    #[test]
    fn only_a_timely_reset_is_a_proof() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conclude(dir.path()), None);
        leave(dir.path(), &boot(), 2_000);
        assert!(conclude(dir.path()).unwrap().text.contains("interrupted"));
        leave(dir.path(), "another", 9_000);
        assert!(conclude(dir.path()).unwrap().text.contains("not relied upon"));
        assert!(!proof_path(dir.path()).exists());
        leave(dir.path(), "another", 200);
        assert!(conclude(dir.path()).unwrap().text.contains("too soon"));
        assert!(!proof_path(dir.path()).exists());
        leave(dir.path(), "another", 2_900);
        assert!(conclude(dir.path()).unwrap().text.contains("2900 ms"));
        assert!(!test_path(dir.path()).exists());
        assert!(is_proven(dir.path(), "i6300") && !is_proven(dir.path(), "another device"));
    }
}
