//! When a boot counts as good.

use std::{sync::Arc, time::Duration};

use dyad_control::{Phase, QuorumStatus, WitnessStatus};
use tokio::{sync::watch, time::Instant};

use crate::snapshot::Snapshot;

/// Seconds after which a healthy node counts as good although neither peer nor witness answers: they may be down.
const ALONE_PERIOD_S: u64 = 60;

/// Whether this boot is good: the core answers, the pool is open on at least one healthy disk, and the peer or the witness was
/// heard or [`ALONE_PERIOD_S`] seconds have passed. On a blank node it is enough that the core answers.
#[must_use]
pub fn good(snapshot: &Snapshot, up_s: u64) -> bool {
    let Some(status) = &snapshot.status else { return false };
    match status.phase {
        Phase::Blank => true,
        Phase::SettingUp { .. } | Phase::Broken { .. } => false,
        Phase::Running => {
            let sound = status.pool.as_ref().is_some_and(|pool| pool.disks.iter().any(|d| d.healthy));
            let heard = |q: &QuorumStatus| q.peer_alive || matches!(q.witness, WitnessStatus::Reachable { .. });
            sound && (status.quorum.as_ref().is_some_and(heard) || up_s >= ALONE_PERIOD_S)
        }
    }
}

/// Waits until the boot is good, then calls `bless` once.
pub async fn when_good(mut moments: watch::Receiver<Arc<Snapshot>>, bless: impl FnOnce() + Send + 'static) {
    let start = Instant::now();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    while !good(&moments.borrow_and_update().clone(), start.elapsed().as_secs()) {
        tokio::select! {
            _ = look.tick() => {}
            changed = moments.changed() => if changed.is_err() { return },
        }
    }
    // `bless` writes to the boot disk, which may take long.
    let _ = tokio::task::spawn_blocking(bless).await;
}
