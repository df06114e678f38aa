//! The inputs and outputs of [`crate::Placement`].

use crate::lifecycle::{LeaveEnd, Timer};
use crate::parts::MembershipTerm;
use dyad_desired::Document;
use dyad_mirror::Mirror;
use dyad_quorum::{Config, Members};
use dyad_types::{BootTime, NodeId, VolumeId};

/// The right to run VMs, as the quorum machine sees it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RightToRun {
    /// This node may run VMs.
    pub may_run: bool,
    /// End of the peer's fence without a proof, while this node is the only member. `None` = both are members, or only a
    /// proof ends the fence.
    pub peer_fence_until: Option<BootTime>,
}

/// One input of the rules, from the quorum thread, the mirror, the document or a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// From quorum: a configuration is in force.
    Config(Config),
    /// From quorum: the nodes that must acknowledge writes.
    AckSet {
        members: Members,
        /// Number of reports (`PeerClean`, `PeerDirty`) that the quorum machine had handled before.
        reports: u64,
    },
    /// From quorum: the VMs of this node are being frozen, and no guest request may start.
    Freezing,
    /// From quorum: the VMs of this node are being killed.
    Killing,
    /// From quorum: the fence of the peer is over, and its VMs may start here.
    PeerVmsAllowed,
    /// From quorum, at each change and after each kill: the right to run VMs.
    RightToRun(RightToRun),
    /// From quorum: the leave is complete.
    LeaveDone,
    /// From the mirror: the peer's replica is complete.
    PeerClean,
    /// From the mirror: the peer's replica is no longer complete.
    PeerDirty,
    /// The change of [`Action::FailOver`] was made or refused.
    FailOverDecided,
    /// A document was read or written in this membership term.
    DocumentRead { document: Document, term: MembershipTerm },
    /// The request of [`Action::ReadDocument`] was carried out, with or without success.
    DocumentReadEnded,
    /// Volume 0 may have changed, because the volume table has.
    ReadDocument,
    /// A data session with the peer began.
    SessionUp,
    /// The data session with the peer ended.
    SessionDown,
    /// The peer says over the session that it has read or written this generation of the document, and that its mirror knows
    /// the writers that follow from it.
    PeerKnows { generation: u64 },
    /// The device server of [`Action::StartServer`] runs.
    ServerStarted(VolumeId),
    /// A client wants this node to hand over to the other one.
    Leave,
    /// A leave that a client asked for is called off. Without effect on the leave of a failed pool.
    CancelLeave,
    /// The time of [`Action::After`] is over.
    TimedOut(Timer),
    /// The pool of this node refused a request.
    PoolFailed,
    /// The VMs of this node are being killed, because it is about to be decommissioned.
    Decommission,
    /// This node is decommissioned: it handles no further event.
    Decommissioned,
    /// The daemon ends.
    Stop,
    /// The deletion of [`Action::DeleteOrphan`] has ended.
    OrphanDeleted { deleted: bool },
}

/// What the caller must do.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a few actions live for microseconds; a box would cost more than their size"
)]
pub enum Action {
    /// Pass this event to the mirror.
    Mirror(dyad_mirror::Event),
    /// Pass this event to the quorum machine.
    Quorum(dyad_quorum::Event),
    /// Start a device server for the volume, then report [`Event::ServerStarted`]. Without that report the action comes
    /// again.
    StartServer {
        volume: VolumeId,
        /// Size in bytes.
        size: u64,
    },
    /// End the device server of the volume without an answer to its open requests.
    EndServer(VolumeId),
    /// VMs may start, as far as this node knows of so many kills since the daemon's start.
    AllowStarts { kills: u64 },
    /// The VM with this name was not permitted before and is now.
    Permitted(String),
    /// Tell the peer over the session that this node knows this generation of the document ([`Event::PeerKnows`]).
    TellPeer { generation: u64 },
    /// Read the document: as the writer of volume 0 if this node leads, else from the local replica.
    ReadDocument { lead: bool, term: MembershipTerm },
    /// Have the document changed so that all VMs and volumes are this node's, then report [`Event::FailOverDecided`].
    FailOver { survivor: NodeId },
    /// Have the document changed so that an aborted import is dropped. A refusal needs no report.
    DropImport {
        /// Name of the volume in the document.
        name: String,
        /// The volume that the image was sent into.
        id: VolumeId,
    },
    /// Delete a volume that no document names any more, on every in-sync node, then report [`Event::OrphanDeleted`].
    DeleteOrphan(VolumeId),
    /// Report [`Event::TimedOut`] after so many nanoseconds.
    After { delay: u64, timer: Timer },
    /// Answer all clients that wait for a leave.
    LeaveEnded(LeaveEnd),
    /// End this process, so that it is started again and opens the pool again.
    EndProcess,
}

/// The state of this node outside of this crate, at the time of a settling.
#[derive(Clone, Copy)]
pub struct LocalState<'a> {
    pub now: BootTime,
    /// The mirror of this node, which knows the volumes of the pool.
    pub mirror: &'a Mirror,
    /// The kernel knows a process of a VM on this node, or cannot tell.
    pub vms_exist: bool,
    /// The watchdog is being tested: this node will be reset.
    pub watchdog_test: bool,
}
