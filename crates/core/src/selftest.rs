//! Proves at install that the watchdog really resets this node: armed, not fed, timed.
//!
//! The node writes every 100 ms for how long it has not fed the watchdog, until it is reset. The next boot finds the last
//! number, which is the time until the reset. Without this proof the other node starts the VMs of this one only on proof of
//! its death.
//!
//! A disk that stalls holds the numbers back, so a reset that seems too soon may have been in time: such a test is repeated
//! once.

use crate::clock;
use crate::init::{self, InitError};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Period used for fencing, in seconds.
pub const PERIOD_S: u64 = 3;
/// Slack beyond one period until the reset, in milliseconds: ticks of 100 ms and the write of the number itself.
const LATE_RESET_PERIOD_MS: u64 = 500;
/// Lower bound of the time until the reset, in milliseconds: the period, less 1 s of the device's granularity, less 250 ms
/// that the last feeding may be old. An earlier reset had another cause.
const EARLIEST_RESET_DELAY_MS: u64 = PERIOD_S * 1000 - 1250;
/// Identity of the kernel's software watchdog. It stops with the kernel, so it proves nothing.
const SOFTWARE: &str = "Software Watchdog";
/// Longest time that a test waits for the reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(4 * PERIOD_S);

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    boot: String,
    watchdog: String,
    unfed_ms: u64,
    /// The test before this one ended too soon.
    #[serde(default)]
    repeated: bool,
}

/// The outcome of a test that a reset or an end of the daemon interrupted.
#[derive(Debug, PartialEq, Eq)]
pub struct SelfTestOutcome {
    /// One sentence for the timeline.
    pub text: String,
    /// It showed nothing: the test is to be run again, before anything else runs on this node.
    pub again: bool,
}

/// Why the watchdog is not proven. Each text is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// A software watchdog proves nothing.
    #[error("This node has only the kernel's software watchdog, which stops together with a hanging kernel.")]
    SoftwareWatchdog,
    /// The note of the test cannot be written.
    #[error("The state partition cannot be written: {error}.")]
    Write { path: PathBuf, error: io::Error },
    /// init does not set the period.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The device has set another period than the one used for fencing.
    #[error("The watchdog knows periods of {granted_s} s, not of {PERIOD_S} s; it is not relied upon.")]
    Period {
        /// The period that the device granted, in seconds.
        granted_s: u64,
    },
    /// The node was not reset.
    #[error("The watchdog did not reset this node within {} s: it is not relied upon.", RESET_TIMEOUT.as_secs())]
    NoReset,
}

/// Where the proof is kept.
fn proof_path(state: &Path) -> PathBuf {
    state.join("watchdog-proof.json")
}

/// Whether this very watchdog has been seen to reset this node.
pub fn is_proven(state: &Path, watchdog: &str) -> bool {
    let note = std::fs::read(proof_path(state)).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    note.is_some_and(|note| note.watchdog == watchdog)
}

fn test_path(state: &Path) -> PathBuf {
    state.join("watchdog-test.json")
}

/// After a boot: was a test under way, and did the watchdog end it in time? Leaves the proof if so.
pub fn conclude(state: &Path) -> Option<SelfTestOutcome> {
    let text = std::fs::read(test_path(state)).ok()?;
    let note: Option<Note> = serde_json::from_slice(&text).ok();
    let mut again = false;
    let text = match note {
        Some(note) if note.boot == boot() => "The watchdog test was interrupted.".to_owned(),
        Some(note) if note.unfed_ms < EARLIEST_RESET_DELAY_MS => {
            again = !note.repeated;
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
    Some(SelfTestOutcome { text, again })
}

/// One test of the watchdog: whether it resets this node when it is not fed.
#[derive(Debug)]
pub struct WatchdogTest {
    /// Folder of the test's note.
    pub state: PathBuf,
    /// Folder of the socket of `dyad-init`.
    pub run: PathBuf,
    /// The watchdog's identity, as the kernel reports it.
    pub watchdog: String,
    /// The test before this one showed nothing.
    pub repeated: bool,
}

impl WatchdogTest {
    /// Waits for the reset of a watchdog that is not fed any more. No VM may run on this node.
    ///
    /// # Errors
    /// Always: it returns only when no reset came.
    pub fn run(self) -> Result<Infallible, SelfTestError> {
        if self.watchdog == SOFTWARE {
            return Err(SelfTestError::SoftwareWatchdog);
        }
        // Before the clock runs: the next boot must know that this one was the repetition, whatever the disk does then.
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
        let note = Note { boot: boot(), watchdog: self.watchdog.clone(), unfed_ms, repeated: self.repeated };
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
        leave_note(dir, &Note { boot: boot.into(), watchdog: "i6300".into(), unfed_ms, repeated: false });
    }

    fn leave_note(dir: &Path, note: &Note) {
        std::fs::write(test_path(dir), serde_json::to_vec(note).unwrap()).unwrap();
    }

    #[test]
    fn a_test_that_showed_nothing_is_repeated_once() {
        let dir = tempfile::tempdir().unwrap();
        let conclude = || conclude(dir.path()).unwrap();
        leave(dir.path(), "another", 462);
        assert!(conclude().again, "the numbers may be late");
        let note = Note { boot: "another".into(), watchdog: "i6300".into(), unfed_ms: 462, repeated: true };
        leave_note(dir.path(), &note);
        let verdict = conclude();
        assert!(!verdict.again && verdict.text.contains("too soon"), "{verdict:?}");
        for (boot, unfed_ms) in [(boot(), 462), ("another".into(), 2_900), ("another".into(), 9_000)] {
            leave(dir.path(), &boot, unfed_ms);
            assert!(!conclude().again, "{unfed_ms}");
        }
        // Written by a version that knew of no repetition.
        std::fs::write(test_path(dir.path()), br#"{"boot":"x","watchdog":"i6300","unfed_ms":1}"#).unwrap();
        assert!(conclude().again);
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
