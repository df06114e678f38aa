//! What [`crate::Quorum`] is given (events) and what it returns (actions).

use serde::{Deserialize, Serialize};

use crate::message::{AcceptorReply, Datagram, WitnessRequest, WitnessRequestId};
use crate::types::{Acceptor, BootTime, Config, Exception, Members, Record, WitnessId};
use dyad_types::{Epoch, NodeId, number};

/// The largest number of peer-link paths.
pub const MAX_PATHS: usize = 4;

number! {
    /// Identifies one [`Action::Persist`] of a run of the daemon.
    pub struct WriteToken;
}

/// An input of [`crate::Quorum`]. Events are handled in the order in which they happened.
#[expect(
    clippy::large_enum_variant,
    reason = "events live one at a time; a box would allocate in the heartbeat thread"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed; due at [`crate::Quorum::next_wakeup`] at the latest.
    Tick,
    /// An authenticated datagram arrived.
    Peer {
        /// The path on which it arrived, below [`MAX_PATHS`].
        path: u8,
        datagram: Datagram,
    },
    /// The result of [`Action::AskWitness`] with the same id.
    Witness { id: WitnessRequestId, reply: WitnessReply },
    /// The record of the [`Action::Persist`] with this token is durable in both places.
    Persisted { token: WriteToken },
    /// The record of the [`Action::Persist`] with this token could not be made durable. The register does not vote again in
    /// this run.
    PersistFailed { token: WriteToken },
    /// True: VMs of this pair may execute here from now on. It comes *before* the first VM is started, and when a restarted
    /// daemon finds the VM cgroup populated. False: no VM is left.
    VmsRunning(bool),
    /// The kernel confirmed that every VM is frozen.
    VmsFrozen,
    /// The VMs execute again after [`Action::Thaw`].
    VmsThawed,
    /// The kernel confirmed that no VM process is left.
    VmsKilled,
    /// The peer's kernel closed the data session, so its machine lives. If its daemon ended, init starts it again: the peer
    /// does not count as silent before [`crate::Timing::restart_timeout`] is over.
    PeerClosed,
    /// A write has waited for the peer's acknowledgement for longer than T_io, 3 s. Repeated while it holds, more often than
    /// [`crate::Timing::stuck_report_period`].
    PeerStuck,
    /// Resync is done: the peer's replica is clean. The reaction is [`Action::AckSet`] with both nodes.
    PeerClean,
    /// The peer holds every write acknowledged so far, and none will be acknowledged without it. Only after this may the peer
    /// become a member again.
    AckPeer,
    /// The peer's replica is behind again: the session ended, or a write was acknowledged solo.
    PeerDirty,
    /// Evidence from outside the heartbeats that the peer is dead.
    Proof(Proof),
    /// Disks, QEMU and uplink of this node work. This is the state at start.
    Healthy,
    /// One of them does not work.
    Faulty,
    /// Whether the hardware watchdog of this node is proven: its test succeeded or failed.
    Watchdog(bool),
    /// The peer joins with the store of this incarnation: it was paired, or an operator confirmed a wiped node.
    Admit { incarnation: u64 },
    /// A witness was enrolled: the first, or a replacement.
    Enrol {
        witness: WitnessId,
        /// Incarnation of its store.
        incarnation: u64,
    },
    /// The whole new list of volumes that one of the members does not hold completely.
    Exceptions(Vec<Exception>),
    /// A planned leave: hands over to the peer, then [`Action::LeaveDone`]. The daemon stops the VMs before it.
    Leave,
    /// The planned leave is cancelled.
    CancelLeave,
    /// An operator forces this node to go on alone with the data it has. A new lineage begins.
    Force,
}

/// The result of a request to the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessReply {
    Received(AcceptorReply),
    /// No connection, or no answer in time.
    Unreachable,
}

/// Proof that no VM of the peer can be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proof {
    /// The management controller of the peer reports that its power is off. No program sends it yet. It is void as soon as the
    /// peer is heard, so its sender must repeat it: a heartbeat sent before the loss of power may arrive later.
    PowerOff,
    /// The kernel of the peer reported that it is dying.
    DyingGasp,
    /// The peer runs under a new boot id.
    NewBoot,
    /// The peer accepted or took over its own removal, after it stopped its VMs (D1).
    Removed,
}

/// What the daemon must do, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        /// The path to send on; `None` = all paths.
        path: Option<u8>,
        datagram: Datagram,
    },
    /// Send a request to the witness. [`Event::Witness`] with the same id must follow, also when the witness does not answer.
    AskWitness { id: WitnessRequestId, request: WitnessRequest },
    /// Make the record durable in both places, then [`Event::Persisted`] with the same token. At most one is under way.
    Persist { token: WriteToken, record: Record },
    /// Freeze all VMs and hold guest I/O, then [`Event::VmsFrozen`].
    Freeze,
    /// Thaw all VMs and stop holding guest I/O, then [`Event::VmsThawed`].
    Thaw,
    /// Kill all VMs, then [`Event::VmsKilled`].
    Kill { reason: KillReason },
    /// This configuration is in force here: it is chosen and durable.
    Config(Config),
    /// A write is acknowledged when all of these nodes hold it. Sent at each change.
    AckSet(Members),
    /// This node is solo and the peer's fence is over: the peer's VMs may be started here.
    PeerVmsAllowed,
    /// A condition that an operator must know of began.
    Alarm(Alarm),
    /// The condition ended.
    Clear(Alarm),
    /// An entry for the timeline.
    Note(Note),
    /// The planned leave is complete: the peer goes on and knows that no VM runs here.
    LeaveDone,
}

/// Why VMs are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KillReason {
    /// A configuration that is chosen, accepted or proposed does not have this node.
    Removed,
    /// This node leaves.
    Leaving,
}

/// A lasting condition that keeps the pair from being protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Alarm {
    /// No heartbeat of the peer for D on any path.
    PeerSilent,
    /// This path does not work in both directions.
    PathDown(u8),
    /// The peer answers from a store that was never admitted.
    PeerUnadmitted,
    /// The witness answers neither this node nor the peer.
    WitnessLost,
    /// The witness was set back to an older record. It must be enrolled again.
    WitnessRolledBack,
    /// This node holds the tie vote although a witness is enrolled and both nodes are in sync.
    TieAt(NodeId),
    /// The clocks of the nodes drift apart by more than ρ. No lease is granted.
    ClockDrift,
    /// The register of this node cannot be written, or its write has hung for [`crate::Timing::write_timeout`].
    RegisterFailed,
    /// The peer's watchdog is not proven: its VMs start here only with a [`Proof`].
    PeerUnfenced,
    /// Two different chosen configurations have one rank. This must never happen.
    Conflict,
}

/// Why a node wants a change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A value was accepted here, and it is not known whether it was chosen.
    Unfinished,
    /// No heartbeat of the peer came within [`crate::Timing::detection`].
    PeerSilent,
    /// The peer does not acknowledge writes.
    PeerStuck,
    /// The register of the peer failed.
    PeerRegister,
    /// The configuration does not admit the peer's store.
    PeerUnadmitted,
    /// This node leaves.
    Leaving,
    /// The peer's replica is complete again, or the peer joins.
    PeerClean,
    /// Neither node has reached the witness for [`crate::Timing::delegate_after`].
    WitnessLost,
    /// The witness answers again, and has for [`crate::Timing::return_after`].
    WitnessBack,
    /// A witness was enrolled.
    Enrol,
    /// The list of excepted volumes changed.
    Exceptions,
    /// The value of an abandoned proposal may be accepted at the witness. Choosing the next epoch voids it.
    Abandoned,
}

/// A timeline entry. All times are on the clock of the node that writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The peer counts as silent from now on.
    PeerSilent {
        /// When its last heartbeat was confirmed.
        last_alive: BootTime,
    },
    /// The peer is heard in both directions again.
    PeerHeard,
    /// A change is being decided.
    Deciding {
        epoch: Epoch,
        why: Reason,
        /// The acceptor whose vote is requested; the node's own if it is a quorum alone.
        target: Acceptor,
    },
    /// A configuration was decided here or learned, and is durable here.
    Chosen {
        epoch: Epoch,
        members: Members,
        /// Holder of the tie vote.
        tie: Acceptor,
        /// It was learned, not decided here.
        learned: bool,
    },
    /// The peer may still run VMs until this time at the latest.
    FenceWait {
        /// When the fence is over without proof; `None` = only proof ends it.
        until: Option<BootTime>,
    },
    /// The peer's fence is over: it runs no VM.
    FenceOver {
        /// The proof; `None` = the time of the fence elapsed, or no peer was ever admitted.
        proof: Option<Proof>,
    },
    /// The right to run ended; VMs are frozen.
    LeaseLapsed,
    /// The right to run returned; VMs are thawed.
    Resumed,
    /// Neither node reaches the witness.
    WitnessLost,
    /// The witness answers one of the nodes again.
    WitnessBack,
}

/// What [`crate::Quorum`] must know of its node at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub me: NodeId,
    pub pair: u128,
    /// Boot id of this machine, not of the daemon.
    pub boot: u128,
    /// Peer-link paths in use, 1 to [`MAX_PATHS`].
    pub paths: u8,
    /// The same on both nodes.
    pub timing: crate::timing::Timing,
    /// The hardware watchdog of this node is proven.
    pub watchdog: bool,
    /// The peer's watchdog is proven, as this node noted it before; the peer's heartbeats correct it.
    pub peer_watchdog: bool,
}
