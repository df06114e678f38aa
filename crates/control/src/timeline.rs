//! The timeline: events and actions of a node, for people.

use crate::codes::wire_codes;
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

/// An event that a node observed, or an action that it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// Grows by one with each entry of this node; starts at 1 when the core starts.
    pub number: u64,
    /// Time of the event in milliseconds of CLOCK_BOOTTIME on this node.
    pub boot_ms: u64,
    /// Wall clock at the time of the entry, in milliseconds since 1970; for people only.
    pub wall_ms: u64,
    /// The node that made the entry; `None` = a blank node.
    pub node: Option<NodeId>,
    pub kind: TimelineKind,
    /// One sentence for people.
    pub text: String,
}

wire_codes! {
    /// The kind of a timeline entry. `docs/manual/timeline.md` says what the operator does.
    TimelineKind;

    /// An alarm began.
    Alarm = "alarm",
    /// An alarm ended.
    AlarmOver = "alarm-over",
    /// The pool refused a request, for example because a disk failed: this node leaves.
    Faulty = "faulty",
    /// A pool is full, or has room again.
    PoolFull = "pool-full",
    /// The pool of this node was opened.
    PoolOpen = "pool-open",
    /// Blocks of a volume cannot be read from any replica that holds every acknowledged write.
    Lost = "lost",
    /// A part of a volume cannot be read on this node.
    Unreadable = "unreadable",
    /// A damaged part of a volume was replaced by the copy of the other node.
    Healed = "healed",
    /// Neither slot of the document is readable on this node.
    DocumentLost = "document-lost",
    /// A blank node refused a request, or could not erase the rest of an interrupted setup.
    Refused = "refused",
    /// A data session with the peer began.
    SessionUp = "session-up",
    /// The data session with the peer ended.
    SessionDown = "session-down",
    /// This node reopens the data session.
    SessionReset = "session-reset",
    /// The peer refused the data session.
    SessionRefused = "session-refused",
    /// A watchdog test began or ended, or the watchdog's period is not the one for fencing.
    Watchdog = "watchdog",
    /// Requests of guests, or changes, have waited for the peer for T_io.
    PeerStuck = "peer-stuck",
    /// The peer's replica is complete again.
    PeerClean = "peer-clean",
    /// Heartbeats of the peer ended.
    PeerSilent = "peer-silent",
    /// Heartbeats of the peer arrive again.
    PeerHeard = "peer-heard",
    /// This node begins to copy to the peer the extents that the peer lacks.
    Resync = "resync",
    /// The copying to the peer ended.
    ResyncDone = "resync-done",
    /// This node sent no heartbeats for more than 200 ms, as their thread was not scheduled or its work took too long.
    Late = "late",
    /// A configuration with a new epoch is being decided.
    Deciding = "deciding",
    /// A configuration with a new epoch was chosen.
    Epoch = "epoch",
    /// The peer may still run VMs.
    FenceWait = "fence-wait",
    /// The peer can no longer run VMs.
    FenceOver = "fence-over",
    /// The right to run has lapsed: VMs are paused.
    LeaseLapsed = "lease-lapsed",
    /// The right to run is back: VMs continue.
    Resumed = "resumed",
    /// The witness does not answer this node, and the peer reports the same or is not heard.
    WitnessLost = "witness-lost",
    /// The witness answers again.
    WitnessBack = "witness-back",
    /// The VMs of this node are stopped.
    VmsKilled = "vms-killed",
    /// A VM may run on this node.
    VmPermitted = "vm-permitted",
    /// A VM runs on this node.
    VmRunning = "vm-running",
    /// A VM does not run on this node any more.
    VmEnded = "vm-ended",
    /// A second node may join with the code that is shown on this node.
    PairingOpen = "pairing-open",
    /// A node has joined.
    Paired = "paired",
    /// A witness is enrolled.
    Enrolled = "enrolled",
    /// This node leaves the pair to be erased.
    Erasing = "erasing",
    /// A blank node erased the files and pool labels of an interrupted setup or erasure.
    Erased = "erased",
    /// A word that this version does not know, from a core of another version. The entry keeps its sentence.
    Unrecognised = "unrecognised",
}
