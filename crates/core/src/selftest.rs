//! The watchdog test: proves that the watchdog resets this node in time when it is not fed. It runs at the end of
//! setup.
//!
//! Every 100 ms the node writes to a file for how long it has not fed the watchdog, until it is reset. The next boot
//! reads the last number. Without this proof the other node starts the VMs of this one only with other evidence that
//! this node runs none.
//!
//! **Bound.** The last number u is not the time until the reset, but [`longest_period_ms`] bounds it:
//! *u + max(n, w) + w*. The last feed is not older than the start of the test, from which u counts: the period is set
//! after it, and init feeds a watchdog whose period it sets. The next note was begun at most
//! max(n, w) after the last one, with n = 100 ms and w = the longest write of a note in this test; and that write had
//! not ended at the reset. The write that the reset cut off cannot be measured: w stands for it. The test succeeds if
//! the bound is at most k·T_wd + q = 3.5 s. Of the budget of the fence, k·T_wd·(1+ρ) + q, this leaves
//! the part with ρ for a device whose clock changes its rate after the test.
//!
//! If the disk stalls, the number is too old or w is too long, and nothing is known: such a test is repeated, at most
//! [`MAX_REPETITIONS`] times.

use crate::clock;
use crate::init::{self, InitError};
use dyad_quorum::{MS, Timing};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Period of the watchdog that fencing relies on, in seconds.
pub const PERIOD_S: u64 = 3;
/// Longest interval between two feedings of the watchdog on a running member, while it may be fed.
pub const WATCHDOG_FEED_INTERVAL: Duration = Duration::from_millis(250);
/// Interval between the beginnings of two notes, unless a write takes longer.
const NOTE_INTERVAL: Duration = Duration::from_millis(100);
/// Length of a note in bytes, filled up with spaces. A note is below one sector of a disk, so a reset leaves the old or
/// the new one.
const NOTE_LENGTH: usize = 512;
/// Lower bound of the time until the reset, in milliseconds: the period less 1 s, the granularity of the device, less
/// 250 ms for the age of the last note. An earlier reset had another cause, or the number is too old.
const EARLIEST_RESET_DELAY_MS: u64 = PERIOD_S * 1000 - 1250;
/// Identity of the kernel's software watchdog. It stops together with the kernel, so fencing cannot rely on it.
const SOFTWARE_WATCHDOG_IDENTITY: &str = "Software Watchdog";
/// Most repetitions of a test without a certain result. Each costs one restart of the node.
const MAX_REPETITIONS: u8 = 3;
/// Longest time that a test waits for the reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(4 * PERIOD_S);

/// The file of a running test; copied as the proof if the test succeeds.
#[derive(Debug, Serialize, Deserialize)]
struct TestNote {
    /// The kernel's id of the boot in which the test runs, in hexadecimal.
    boot: String,
    /// The watchdog's identity, as the kernel reports it.
    watchdog: String,
    /// Time from the start of the test until this note was begun, in milliseconds.
    unfed_ms: u64,
    /// Longest write of a note before this one, in milliseconds, rounded up. `None` = a test by a version that did not
    /// measure it: its number bounds nothing.
    #[serde(default)]
    slowest_write_ms: Option<u64>,
    /// Number of tests before this one whose result was not certain.
    #[serde(default)]
    repetition: u8,
}

/// Upper bound of the time from the last feed until the reset that followed the note, in milliseconds: the formula of
/// the module. `None` = the note has no bound.
fn longest_period_ms(note: &TestNote) -> Option<u64> {
    let write = note.slowest_write_ms?;
    let interval = write.max(NOTE_INTERVAL.as_millis() as u64);
    Some(note.unfed_ms + interval + write)
}

/// Longest period with which the watchdog counts as proven, in milliseconds: k·T_wd + q.
fn longest_proven_period_ms() -> u64 {
    let timing = Timing::standard();
    (timing.watchdog_periods * timing.watchdog_timeout + timing.watchdog_feed_margin) / MS
}

fn is_timely(note: &TestNote) -> bool {
    longest_period_ms(note).is_some_and(|longest| longest <= longest_proven_period_ms())
}

/// The outcome of a test that a reset or an end of the daemon interrupted.
#[derive(Debug, PartialEq, Eq)]
pub struct SelfTestOutcome {
    /// One sentence for the timeline.
    pub text: String,
    /// The result is not certain: the test must be run again, before VMs run on this node, as the repetition of this number.
    pub repeat: Option<u8>,
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

/// Number of the repetition of a test without a certain result; `None` = no further one.
fn next_repetition(note: &TestNote) -> Option<u8> {
    (note.repetition < MAX_REPETITIONS).then_some(note.repetition + 1)
}

/// Path of the proof, which survives restarts.
fn proof_path(state: &Path) -> PathBuf {
    state.join("watchdog-proof.json")
}

/// Whether a test has shown that the watchdog with this identity resets this node in time. The stored proof is judged
/// again by the bound of this version.
pub fn is_proven(state: &Path, watchdog: &str) -> bool {
    let note = std::fs::read(proof_path(state)).ok().and_then(|text| serde_json::from_slice::<TestNote>(&text).ok());
    note.is_some_and(|note| note.watchdog == watchdog && is_timely(&note))
}

fn test_path(state: &Path) -> PathBuf {
    state.join("watchdog-test.json")
}

/// Judges the test that was under way when this node was reset or this daemon ended, and stores the proof if the
/// watchdog reset the node in time. Called at the start of the daemon. `None` = no test was under way.
pub fn conclude(state: &Path) -> Option<SelfTestOutcome> {
    let text = std::fs::read(test_path(state)).ok()?;
    let note: Option<TestNote> = serde_json::from_slice(&text).ok();
    let mut repeat = None;
    let text = match note {
        Some(note) if note.boot == boot() => "The watchdog test was interrupted.".to_owned(),
        Some(note) if note.unfed_ms < EARLIEST_RESET_DELAY_MS => {
            repeat = next_repetition(&note);
            format!("This node restarted {} ms into the watchdog test, too soon to be its work.", note.unfed_ms)
        }
        Some(note) if is_timely(&note) => match dyad_atomic_file::replace(&proof_path(state), &text) {
            Ok(()) => {
                format!("The watchdog reset this node after {} ms at most.", longest_period_ms(&note).unwrap_or(0))
            }
            Err(e) => format!("The proof of the watchdog cannot be written: {e}."),
        },
        Some(note) if note.unfed_ms <= longest_proven_period_ms() => {
            repeat = next_repetition(&note);
            format!(
                "The watchdog reset this node {} ms or more into its test, but the disk was too slow to tell whether that \
                 was in time.",
                note.unfed_ms
            )
        }
        Some(note) => {
            format!("The watchdog took more than {} ms to reset this node: it is not relied upon.", note.unfed_ms)
        }
        None => "The note of the watchdog test is damaged; repeat the test.".to_owned(),
    };
    remove_note(state);
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
    /// Number of tests before this one whose result was not certain.
    pub repetition: u8,
}

impl WatchdogTest {
    /// Calls `stop_feeding`, which must end the feeding of the watchdog, and waits for the reset by the watchdog. No VM
    /// may run on this node.
    ///
    /// # Errors
    /// Always: it returns only when no reset came. The note of the test is then removed, because a later reset of this
    /// node has nothing to do with the test.
    pub fn run(self, stop_feeding: impl FnOnce()) -> Result<Infallible, SelfTestError> {
        if self.watchdog == SOFTWARE_WATCHDOG_IDENTITY {
            return Err(SelfTestError::SoftwareWatchdog);
        }
        let ended = self.wait_for_reset(stop_feeding);
        remove_note(&self.state);
        ended
    }

    fn wait_for_reset(&self, stop_feeding: impl FnOnce()) -> Result<Infallible, SelfTestError> {
        let path = test_path(&self.state);
        let failed = |error| SelfTestError::Write { path: path.clone(), error };
        // Written before the time is measured: the next boot must know whether this test was the repetition, also if
        // the disk stalls from now on.
        dyad_atomic_file::replace(&path, &self.note(0, None)).map_err(failed)?;
        let file = File::options().write(true).open(&path).map_err(failed)?;
        // The measurement begins before the feeding ends: a feed after this makes the true period shorter than the
        // bound.
        let since = Instant::now();
        stop_feeding();
        let granted = init::watchdog_period(&self.run, PERIOD_S)?;
        if granted != PERIOD_S {
            return Err(SelfTestError::Period { granted_s: granted });
        }
        let mut slowest = Duration::ZERO;
        while since.elapsed() < RESET_TIMEOUT {
            let begin = Instant::now();
            let slowest_ms = slowest.as_micros().div_ceil(1000) as u64;
            // Written in place: this takes one sync of the disk, a replacement of the file takes two.
            let note = self.note(since.elapsed().as_millis() as u64, Some(slowest_ms));
            file.write_all_at(&note, 0).and_then(|()| file.sync_data()).map_err(failed)?;
            slowest = slowest.max(begin.elapsed());
            std::thread::sleep(NOTE_INTERVAL.saturating_sub(begin.elapsed()));
        }
        Err(SelfTestError::NoReset)
    }

    /// A note in the form in which it is written.
    fn note(&self, unfed_ms: u64, slowest_write_ms: Option<u64>) -> Vec<u8> {
        let (watchdog, repetition) = (self.watchdog.clone(), self.repetition);
        let note = TestNote { boot: boot(), watchdog, unfed_ms, slowest_write_ms, repetition };
        let mut bytes = serde_json::to_vec(&note).expect("numbers and texts have a JSON form");
        bytes.resize(bytes.len().max(NOTE_LENGTH), b' ');
        bytes
    }
}

/// Stores the proof that the watchdog with this identity reset its node in time.
#[cfg(test)]
pub fn store_proof(state: &Path, watchdog: &str) {
    let (watchdog, slowest_write_ms) = (watchdog.to_owned(), Some(20));
    let note = TestNote { boot: "another".into(), watchdog, unfed_ms: 2_900, slowest_write_ms, repetition: 0 };
    std::fs::write(proof_path(state), serde_json::to_vec(&note).expect("a note has a JSON form"))
        .expect("it is written");
}

fn remove_note(state: &Path) {
    // A note that cannot be removed is judged at the next boot, which at worst repeats the test.
    if let Err(error) = dyad_atomic_file::remove(&test_path(state)) {
        tracing::error!(%error, "the note of the watchdog test cannot be removed");
    }
}

fn boot() -> String {
    format!("{:032x}", clock::boot_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(unfed_ms: u64, slowest_write_ms: u64) -> TestNote {
        let slowest_write_ms = Some(slowest_write_ms);
        TestNote { boot: "another".into(), watchdog: "i6300".into(), unfed_ms, slowest_write_ms, repetition: 0 }
    }

    /// Concludes a test that left this note.
    fn conclude_note(dir: &Path, note: &TestNote) -> SelfTestOutcome {
        std::fs::write(test_path(dir), serde_json::to_vec(note).unwrap()).unwrap();
        conclude(dir).unwrap()
    }

    #[test]
    fn a_test_that_showed_nothing_is_repeated_three_times() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conclude_note(dir.path(), &note(462, 20)).repeat, Some(1), "the number may be old");
        let verdict = conclude_note(dir.path(), &TestNote { repetition: 3, ..note(462, 20) });
        assert!(verdict.repeat.is_none() && verdict.text.contains("too soon"), "{verdict:?}");
        let verdict = conclude_note(dir.path(), &note(2_900, 400));
        assert!(verdict.repeat == Some(1) && verdict.text.contains("too slow to tell"), "{verdict:?}");
        let last = TestNote { repetition: 2, ..note(2_900, 400) };
        assert_eq!(conclude_note(dir.path(), &last).repeat, Some(3));
        assert_eq!(conclude_note(dir.path(), &TestNote { repetition: 3, ..last }).repeat, None);
        assert!(!proof_path(dir.path()).exists());
        for certain in [TestNote { boot: boot(), ..note(462, 20) }, note(2_900, 20), note(9_000, 20)] {
            assert_eq!(conclude_note(dir.path(), &certain).repeat, None, "{certain:?}");
        }
        // Written by versions that knew of no repetition, and measured no write.
        for old in
            [r#"{"boot":"x","watchdog":"i6300","unfed_ms":1}"#, r#"{"boot":"x","watchdog":"i6300","unfed_ms":2900}"#]
        {
            std::fs::write(test_path(dir.path()), old).unwrap();
            assert!(conclude(dir.path()).unwrap().repeat.is_some(), "{old}");
        }
    }

    #[test]
    fn only_a_timely_reset_is_a_proof() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conclude(dir.path()), None);
        let same_boot = TestNote { boot: boot(), ..note(2_000, 20) };
        assert!(conclude_note(dir.path(), &same_boot).text.contains("interrupted"));
        assert!(conclude_note(dir.path(), &note(9_000, 20)).text.contains("not relied upon"));
        assert!(!proof_path(dir.path()).exists());
        assert!(conclude_note(dir.path(), &note(200, 20)).text.contains("too soon"));
        assert!(!proof_path(dir.path()).exists());
        assert!(conclude_note(dir.path(), &note(2_900, 20)).text.contains("3020 ms at most"));
        assert!(!test_path(dir.path()).exists());
        assert!(is_proven(dir.path(), "i6300") && !is_proven(dir.path(), "another device"));
    }

    #[test]
    fn the_longest_period_that_a_proof_admits_is_within_the_budget_of_the_fence() {
        let timing = Timing::standard();
        let budget_ms = (timing.fence_period() - timing.lease_period) / MS;
        for slowest_write_ms in [0, 1, 99, 100, 101, 500] {
            let dir = tempfile::tempdir().unwrap();
            let last = (0..6_000).rev().find(|unfed| is_timely(&note(*unfed, slowest_write_ms))).unwrap();
            // The device was fed when the test began, and reset the node when the next note was nearly written.
            let true_period = last + slowest_write_ms.max(100) + slowest_write_ms;
            assert_eq!(true_period, 3_500, "{slowest_write_ms}");
            assert!(true_period <= budget_ms, "{true_period} {budget_ms}");
            conclude_note(dir.path(), &note(last + 1, slowest_write_ms));
            assert!(
                !is_proven(dir.path(), "i6300"),
                "one millisecond above the bound, writes of {slowest_write_ms} ms"
            );
            conclude_note(dir.path(), &note(last, slowest_write_ms));
            assert!(is_proven(dir.path(), "i6300"), "at the bound, writes of {slowest_write_ms} ms");
        }
    }

    #[test]
    fn a_proof_that_was_stored_under_a_laxer_bound_no_longer_counts() {
        let dir = tempfile::tempdir().unwrap();
        for proof in
            [r#"{"boot":"x","watchdog":"i6300","unfed_ms":3400}"#, r#"{"boot":"x","watchdog":"i6300","unfed_ms":2900}"#]
        {
            std::fs::write(proof_path(dir.path()), proof).unwrap();
            assert!(!is_proven(dir.path(), "i6300"), "{proof}");
        }
    }

    #[test]
    fn a_test_without_a_watchdog_leaves_no_note() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing answers in the folder of init's socket, as on a node that has no watchdog any more.
        let (state, run) = (dir.path().to_owned(), dir.path().to_owned());
        let mut stopped = false;
        let test = WatchdogTest { state, run, watchdog: "i6300".into(), repetition: 0 };
        let Err(error) = test.run(|| stopped = true);
        assert!(matches!(error, SelfTestError::Init(_)) && stopped, "{error}");
        assert_eq!(conclude(dir.path()), None, "a later restart is not judged as the end of this test");
    }

    /// A reset by such a device could be timely by chance: its period is rounded to what the device knows.
    #[test]
    fn a_watchdog_that_grants_another_period_is_not_tested() {
        for (answer, granted) in [("ok 2", 2), ("ok 4", 4)] {
            let dir = tempfile::tempdir().unwrap();
            let init = init::testing::answer_once(dir.path(), answer);
            let (state, run) = (dir.path().to_owned(), dir.path().to_owned());
            let Err(error) = WatchdogTest { state, run, watchdog: "i6300".into(), repetition: 0 }.run(|| ());
            assert!(matches!(error, SelfTestError::Period { granted_s } if granted_s == granted), "{error}");
            assert_eq!(init.join().unwrap(), "watchdog 3");
        }
    }

    #[test]
    fn a_note_is_below_one_sector_and_keeps_its_length() {
        let (state, run) = (PathBuf::new(), PathBuf::new());
        // The kernel's name of a watchdog has 32 bytes.
        let test = WatchdogTest { state, run, watchdog: "\u{1}".repeat(32), repetition: 0 };
        for (unfed_ms, write_ms) in [(0, None), (12_000, Some(12_000))] {
            let bytes = test.note(unfed_ms, write_ms);
            assert_eq!(bytes.len(), NOTE_LENGTH);
            let note: TestNote = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((note.unfed_ms, note.slowest_write_ms), (unfed_ms, write_ms));
        }
    }
}
