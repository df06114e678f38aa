//! Proves at install that the watchdog really resets this node: armed, not fed, timed.
//!
//! The node writes down every 100 ms for how long it has not fed the watchdog, until it is reset. The next boot finds
//! the last number, which is how long the reset took. Without this proof VMs of this node are started on the other one
//! only on proof of death.

use crate::{clock, files, init};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Period used for fencing, in seconds.
pub const PERIOD_S: u64 = 3;
/// The reset must come within k = 1 periods and this much, in milliseconds, for ticks and the write itself.
const SLACK_MS: u64 = 500;
/// A watchdog that has done nothing for this long never will.
const GIVE_UP: Duration = Duration::from_secs(4 * PERIOD_S);

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    boot: String,
    unfed_ms: u64,
}

/// Where the proof is kept.
pub fn proof_path(state: &Path) -> PathBuf {
    state.join("watchdog-proof.json")
}

fn test_path(state: &Path) -> PathBuf {
    state.join("watchdog-test.json")
}

/// After a boot: was a test under way, and did the watchdog end it in time? Leaves the proof if so.
pub fn conclude(state: &Path) -> Option<String> {
    let text = std::fs::read(test_path(state)).ok()?;
    let note: Option<Note> = serde_json::from_slice(&text).ok();
    let verdict = match note {
        Some(note) if note.boot == boot() => "The watchdog test was interrupted.".to_owned(),
        Some(note) if note.unfed_ms <= PERIOD_S * 1000 + SLACK_MS => match files::replace(&proof_path(state), &text) {
            Ok(()) => format!("The watchdog reset this node within {} ms.", note.unfed_ms.max(100)),
            Err(e) => format!("The proof of the watchdog cannot be written: {e}."),
        },
        Some(note) => {
            format!("The watchdog took more than {} ms to reset this node: it is not relied upon.", note.unfed_ms)
        }
        None => "The note of the watchdog test is damaged; repeat the test.".to_owned(),
    };
    let _ = std::fs::remove_file(test_path(state));
    Some(verdict)
}

/// Stops feeding and waits for the reset. Returns only when none came. Nothing may run on this node.
pub fn run(state: &Path, run: &Path) -> Result<(), String> {
    let granted = init::watchdog_period(run, PERIOD_S)?;
    if granted != PERIOD_S {
        return Err(format!("The watchdog knows periods of {granted} s, not of {PERIOD_S} s; it is not relied upon."));
    }
    let since = Instant::now();
    while since.elapsed() < GIVE_UP {
        let note = Note { boot: boot(), unfed_ms: since.elapsed().as_millis() as u64 };
        let bytes = serde_json::to_vec(&note).map_err(|e| e.to_string())?;
        files::replace(&test_path(state), &bytes)
            .map_err(|e| format!("The state partition cannot be written: {e}."))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = std::fs::remove_file(test_path(state));
    Err(format!("The watchdog did not reset this node within {} s: it is not relied upon.", GIVE_UP.as_secs()))
}

fn boot() -> String {
    format!("{:032x}", clock::boot_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(dir: &Path, boot: &str, unfed_ms: u64) {
        let note = Note { boot: boot.into(), unfed_ms };
        std::fs::write(test_path(dir), serde_json::to_vec(&note).unwrap()).unwrap();
    }

    #[test]
    fn only_a_timely_reset_is_a_proof() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conclude(dir.path()), None);
        leave(dir.path(), &boot(), 2_000);
        assert!(conclude(dir.path()).unwrap().contains("interrupted"));
        leave(dir.path(), "another", 9_000);
        assert!(conclude(dir.path()).unwrap().contains("not relied upon"));
        assert!(!proof_path(dir.path()).exists());
        leave(dir.path(), "another", 2_900);
        assert!(conclude(dir.path()).unwrap().contains("2900 ms"));
        assert!(proof_path(dir.path()).exists() && !test_path(dir.path()).exists());
    }
}
