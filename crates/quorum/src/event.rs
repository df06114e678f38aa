//! The inputs of [`crate::Quorum`] (events) and its outputs (actions).

use serde::{Deserialize, Serialize};

use crate::message::{AcceptorReply, Datagram, WitnessRequest, WitnessRequestId};
use crate::types::{Acceptor, AcceptorRecord, BootTime, Config, Exception, Members, WitnessId};
use dyad_types::{Epoch, NodeId, number};

/// The largest number of peer-link paths.
pub const MAX_PATHS: usize = 4;

number! {
    /// Identifies one [`Action::Persist`] within one boot.
    pub struct WriteToken;
}

/// An input of [`crate::Quorum`]. Events are handled in the order in which they happened.
#[expect(
    clippy::large_enum_variant,
    reason = "events live one at a time; a box would allocate in the heartbeat thread"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed. The daemon sends it at [`crate::Quorum::next_wakeup`] at the latest.
    Tick,
    /// An authenticated datagram arrived.
    Peer {
        /// The path on which it arrived, below [`MAX_PATHS`].
        path: u8,
        datagram: Datagram,
    },
    /// The result of [`Action::AskWitness`] with the same id.
    Witness { id: WitnessRequestId, reply: WitnessReply },
    /// The record of the [`Action::Persist`] with this token is durable in both files of the register.
    Persisted { token: WriteToken },
    /// The record of the [`Action::Persist`] with this token could not be made durable. The register does not vote
    /// again in this run of the daemon.
    PersistFailed { token: WriteToken },
    /// `true`: VMs may execute here from now on. The daemon sends it *before* it permits the first VM to start, and at
    /// its own start if the VM cgroup is populated. `false`: no VM exists here.
    VmsRunning(bool),
    /// The kernel confirmed that every VM is frozen.
    VmsFrozen,
    /// The VMs execute again after [`Action::Thaw`].
    VmsThawed,
    /// The kernel confirmed that no VM process is left.
    VmsKilled,
    /// The peer's end of the data session was closed, so its machine lives. If its daemon ended, init starts it again:
    /// a peer that is alive now and sends no later heartbeat counts as silent only after
    /// [`crate::Timing::restart_timeout`].
    PeerClosed,
    /// A request to the peer has been unanswered for longer than T_io, 3 s, or the peer could not carry out a write or
    /// a sync. The mirror repeats it every T_io while the request stays unanswered.
    PeerStuck,
    /// Resync is done: the peer's replica is clean. A solo node answers with [`Action::AckSet`] of both nodes.
    PeerClean,
    /// The mirror applies the acknowledgement set of both nodes that followed [`Event::PeerClean`]: the peer holds
    /// every write acknowledged so far, and none will be acknowledged without it. Only after this may the peer become a
    /// member again.
    PeerInAckSet,
    /// The peer's replica is incomplete again: the session ended, or a write was acknowledged solo.
    PeerDirty,
    /// Evidence from outside the heartbeats that the peer is dead.
    Proof(Proof),
    /// Disks, QEMU and uplink of this node work. This is the state at start.
    Healthy,
    /// A disk, QEMU or the uplink of this node does not work. The daemon reports a failed pool only.
    Faulty,
    /// The pool of this node has left a command unanswered for longer than T_io, 3 s.
    StorageStuck,
    /// The pool of this node has answered every command that was unanswered at [`Event::StorageStuck`]. This is the state
    /// at start.
    StorageAnswers,
    /// The test of this node's hardware watchdog has ended; `true` if it is proven.
    WatchdogProven(bool),
    /// The peer joins with the store of this incarnation: it was paired, or an operator confirmed a wiped node.
    Admit { incarnation: u64 },
    /// A witness was enrolled: the first one, or a replacement.
    Enrol {
        witness: WitnessId,
        /// Incarnation of the witness's record of this pair.
        incarnation: u64,
    },
    /// The new list of volumes that one member does not hold completely; it replaces the former list. With more than
    /// [`crate::types::MAX_EXCEPTIONS`] the node that lacks most of them is removed instead.
    Exceptions(Vec<Exception>),
    /// A planned leave: this node hands over to its peer, then follows [`Action::LeaveDone`]. VMs that still run are
    /// killed while the peer can take over; a solo node waits until the daemon has stopped them.
    Leave,
    /// The planned leave is cancelled.
    CancelLeave,
    /// An operator forces this node to go on alone with the data it has. A new lineage begins. Ignored if this node was
    /// never set up or its register has failed.
    Force,
}

/// The result of a request to the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessReply {
    Received(AcceptorReply),
    /// No usable answer: the witness was not reached, was too late, refused, or none is enrolled.
    NoAnswer,
}

/// Evidence that no VM of the peer can be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proof {
    /// The management controller of the peer reports that its power is off. It is void as soon as a heartbeat of the
    /// peer arrives. Its sender must repeat it, because a heartbeat sent before the loss of power may arrive later. No
    /// program sends it yet.
    PowerOff,
    /// The kernel of the peer reported that it is dying. Void as [`Proof::PowerOff`]. No program sends it yet.
    DyingGasp,
    /// The peer's heartbeats carry a new boot id.
    NewBoot,
    /// The peer accepted or adopted its own removal, after it stopped its VMs (D1).
    Removed,
}

/// An output of [`crate::Quorum`]. The daemon carries actions out in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send {
        /// The path to send on; `None` = all paths.
        path: Option<u8>,
        datagram: Datagram,
    },
    /// Send a request to the witness. [`Event::Witness`] with the same id must follow, also when the witness does not
    /// answer.
    AskWitness { id: WitnessRequestId, request: WitnessRequest },
    /// Make the record durable in both files of the register, then report [`Event::Persisted`] or
    /// [`Event::PersistFailed`] with the same token. At most one is under way.
    Persist { token: WriteToken, record: AcceptorRecord },
    /// Freeze all VMs and hold guest I/O, then report [`Event::VmsFrozen`].
    Freeze,
    /// Thaw all VMs, then report [`Event::VmsThawed`].
    Thaw,
    /// Kill all VMs, then report [`Event::VmsKilled`].
    Kill { reason: KillReason },
    /// This configuration is in force here: it is chosen and durable. Sent at the start and at each change.
    Config(Config),
    /// A write is acknowledged when all of these nodes hold it. Sent at the start and at each change.
    AckSet(Members),
    /// This node is solo and the peer's fence is over: the peer's VMs may be started here.
    PeerVmsAllowed,
    /// A condition that an operator must know of began.
    Alarm(Alarm),
    /// The condition ended.
    Clear(Alarm),
    /// An entry for the timeline.
    Note(Note),
    /// The planned leave is complete: this node may stop. Either the peer goes on alone and knows that no VM runs here,
    /// or there is no peer to hand over to: this node was not set up, is solo, or no longer hears the peer that goes
    /// on.
    LeaveDone,
}

/// The reason for which VMs are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KillReason {
    /// A configuration that is chosen, accepted or proposed does not have this node as a member with its present store.
    Removed,
    /// This node leaves, and its peer can take over.
    Leaving,
}

/// A lasting condition that keeps the pair from being protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Alarm {
    /// No path to the peer has worked in both directions for D, or the peer's kernel reported that it is dying.
    PeerSilent,
    /// The path with this number does not work in both directions.
    PathDown(u8),
    /// The peer is heard, but the configuration does not admit its store.
    PeerUnadmitted,
    /// The witness does not answer this node, and the peer reports the same or is not heard.
    WitnessLost,
    /// The witness was set back to an older record. It must be enrolled again.
    WitnessRolledBack,
    /// The named node holds the tie vote although a witness is enrolled and both nodes are in sync.
    TieAt(NodeId),
    /// The clocks of the nodes drift apart by more than ρ. This node grants no lease.
    ClockDrift,
    /// The register of this node cannot be written, or its write has hung for [`crate::Timing::write_timeout`].
    RegisterFailed,
    /// The pool of this node does not answer its commands ([`Event::StorageStuck`]).
    StorageStuck,
    /// The peer's watchdog is not proven: its VMs start here only with a [`Proof`].
    PeerUnfenced,
    /// Two different chosen configurations have the same rank. This must never happen.
    Conflict,
}

/// The reason for which a node wants a change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A value was accepted here, and it is not known whether it was chosen.
    Unfinished,
    /// The peer counts as silent ([`Alarm::PeerSilent`]).
    PeerSilent,
    /// The peer does not answer the mirror's requests ([`Event::PeerStuck`]).
    PeerStuck,
    /// The peer reports that its register failed or hangs.
    PeerRegister,
    /// The peer reports that its pool does not answer ([`Event::StorageStuck`]).
    PeerStorage,
    /// The configuration does not admit the peer's store.
    PeerUnadmitted,
    /// This node leaves.
    Leaving,
    /// The peer's replica is complete again, or the peer joins.
    PeerClean,
    /// Neither node has reached the witness for [`crate::Timing::tie_delegation_delay`].
    WitnessLost,
    /// The witness has answered for [`crate::Timing::tie_return_delay`], or was newly enrolled.
    WitnessBack,
    /// A witness was enrolled.
    Enrol,
    /// The list of excepted volumes changed.
    Exceptions,
    /// An own proposal was abandoned, and an acceptor may have accepted its value. The choice of the next epoch makes
    /// it void.
    Abandoned,
}

/// A timeline entry. All times are on the clock of the node that writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The peer counts as silent from now on.
    PeerSilent {
        /// Arrival of its last confirmed heartbeat.
        last_alive: BootTime,
    },
    /// The peer is heard in both directions again.
    PeerHeard,
    /// A change is being decided.
    Deciding {
        epoch: Epoch,
        why: Reason,
        /// The acceptor whose vote is requested; this node itself if it alone is a quorum.
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
    /// The peer's VMs must not start here yet, because the peer may still run them.
    FenceWait {
        /// End of the fence without a proof; `None` = only a proof ends it.
        until: Option<BootTime>,
    },
    /// The peer's fence is over: it runs no VM.
    FenceOver {
        /// The proof; `None` = the time of the fence elapsed, or no peer was ever admitted.
        proof: Option<Proof>,
    },
    /// The right to run ended: [`Action::Freeze`] follows.
    LeaseLapsed,
    /// The right to run returned: [`Action::Thaw`] follows.
    Resumed,
    /// The alarm [`Alarm::WitnessLost`] began.
    WitnessLost,
    /// The alarm [`Alarm::WitnessLost`] ended.
    WitnessBack,
}

/// Values that [`crate::Quorum::new`] needs besides the durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub me: NodeId,
    pub pair: u128,
    /// Boot id of this machine, not of the daemon.
    pub boot: u128,
    /// Number of peer-link paths in use, 1 to [`MAX_PATHS`].
    pub paths: u8,
    /// The time profile; it must be the same on both nodes.
    pub timing: crate::timing::Timing,
    /// The hardware watchdog of this node is proven.
    pub watchdog_proven: bool,
    /// The peer's watchdog was proven when this node last heard of it. Heartbeats of the peer replace this value.
    pub peer_watchdog_proven: bool,
}
