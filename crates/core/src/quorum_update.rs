//! Updates of the quorum thread for `CoreState`, as plain values.

use crate::turn::LateTurn;
use dyad_quorum::{Alarm, BootTime, Config, KillReason, Members, Note, RunState};
use std::net::SocketAddr;

/// One update of the quorum thread for `CoreState`.
#[derive(Debug)]
pub enum QuorumUpdate {
    /// A configuration is in force.
    Config(Config),
    /// The nodes that must acknowledge writes, and how many `PeerClean` and `PeerDirty` of the mirror the quorum machine
    /// had handled before it decided so.
    AckSet(Members, u64),
    /// The VMs of this node are being frozen: no guest request may start.
    Hold,
    /// The VMs of this node are being killed, for this reason.
    Kill(KillReason),
    /// The fence of the peer is over: its VMs may start here.
    PeerVmsAllowed,
    /// A lasting condition began.
    Alarm(Alarm),
    /// A lasting condition ended.
    Clear(Alarm),
    /// An entry for the timeline, and the time of what it reports.
    Note(BootTime, Note),
    /// A planned leave is complete.
    LeaveDone,
    /// The quorum thread sent no heartbeat for more than 200 ms: it was not scheduled, or its own work took too long.
    Late(LateTurn),
    /// The state of the quorum machine, sent at each change.
    Snapshot(QuorumSnapshot),
}

/// The state of the quorum machine that the rest of the daemon needs.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumSnapshot {
    /// Reason for which this node may or may not run VMs; `None` until the quorum machine has judged for the first time.
    pub run_state: Option<RunState>,
    /// Whether this node may run VMs.
    pub may_run: bool,
    /// Heartbeats pass in both directions on at least one path.
    pub peer_alive: bool,
    /// By path: heartbeats pass in both directions.
    pub paths_up: Vec<bool>,
    /// By path: the address from which the peer was last heard.
    pub peer_addresses: Vec<Option<SocketAddr>>,
    /// The peer's watchdog is proven, as the peer said last.
    pub peer_watchdog_proven: bool,
    /// End of the peer's fence without a proof, while this node is the only member. `None` = both are members, or only a
    /// proof ends the fence.
    pub peer_fence_until: Option<BootTime>,
    pub witness: WitnessHealth,
}

/// Before the first update of the quorum thread: nothing is known, and no VM may run.
impl Default for QuorumSnapshot {
    fn default() -> Self {
        Self {
            run_state: None,
            may_run: false,
            peer_alive: false,
            paths_up: Vec::new(),
            peer_addresses: Vec::new(),
            peer_watchdog_proven: false,
            peer_fence_until: None,
            witness: WitnessHealth::Silent { since: None },
        }
    }
}

/// The outcome of the last request to the witness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WitnessHealth {
    Answers {
        /// Round-trip time in microseconds.
        rtt_us: u64,
    },
    /// The witness did not answer.
    Silent {
        /// Time of its last answer; `None` = no answer since this daemon started.
        since: Option<BootTime>,
    },
}
