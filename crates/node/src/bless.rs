//! The decision whether a boot is good, so that the running slot is blessed (marked as good for the boot loader).

use std::{sync::Arc, time::Duration};

use dyad_control::{Phase, QuorumStatus, WitnessStatus};
use tokio::{sync::watch, time::Instant};

use crate::snapshot::Snapshot;

/// Seconds after the start of this program from which a boot is good although neither the peer nor the witness answers: they
/// may be down.
const ALONE_PERIOD_S: u64 = 60;

/// Whether this boot is good. On a blank node: the core answers. On a node of a pair: the pool is open, at least one of its
/// disks is healthy, and either the peer or the witness answers or `up_s`, the seconds since this program started, has reached
/// [`ALONE_PERIOD_S`].
#[must_use]
pub fn is_good(snapshot: &Snapshot, up_s: u64) -> bool {
    let Some(status) = &snapshot.status else { return false };
    match status.phase {
        Phase::Blank => true,
        Phase::SettingUp { .. } | Phase::Broken { .. } => false,
        Phase::Running => {
            let pool_works = status.pool.as_ref().is_some_and(|pool| pool.disks.iter().any(|d| d.healthy));
            let other_answers = |q: &QuorumStatus| q.peer_alive || matches!(q.witness, WitnessStatus::Reachable { .. });
            pool_works && (status.quorum.as_ref().is_some_and(other_answers) || up_s >= ALONE_PERIOD_S)
        }
    }
}

/// Waits until the boot is good, then calls `bless` once in a blocking task. Returns earlier only if the control plane ends.
pub async fn when_good(mut snapshots: watch::Receiver<Arc<Snapshot>>, bless: impl FnOnce() + Send + 'static) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while !is_good(&snapshots.borrow_and_update().clone(), start.elapsed().as_secs()) {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
    // `bless` writes to the system disk, which may take long.
    let _ = tokio::task::spawn_blocking(bless).await;
}
