//! What goes into the machine and what comes out.

use serde::{Deserialize, Serialize};

use crate::message::{Answer, Datagram, WitnessAsk};
use crate::types::{Acceptor, Config, Exception, Members, Record, Time, WitnessId};
use dyad_types::NodeId;

/// The largest number of peer-link paths.
pub const MAX_PATHS: usize = 4;

/// Something that happened. Events are handled in the order in which they happened.
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
        /// On which path, below [`MAX_PATHS`].
        path: u8,
        /// What.
        datagram: Datagram,
    },
    /// The outcome of [`Action::AskWitness`] with the same id.
    Witness {
        /// The id of the ask.
        id: u64,
        /// The answer, or that there will be none.
        reply: WitnessReply,
    },
    /// The record of this [`Action::Persist`] is durable in every place.
    Persisted {
        /// The token of the action.
        token: u64,
    },
    /// The record could not be made durable. The register votes no more in this run.
    PersistFailed {
        /// The token of the action.
        token: u64,
    },
    /// VMs of this pair may execute here from now on (true, told *before* the first is started or when a restarted
    /// daemon finds the VM cgroup populated), or none is left (false).
    VmsRunning(bool),
    /// The kernel confirmed that every VM is frozen.
    VmsFrozen,
    /// The VMs execute again after [`Action::Thaw`].
    VmsThawed,
    /// The kernel confirmed that no VM process is left.
    VmsKilled,
    /// The other side closed the data session: its machine lives. If its daemon ended, init starts it again, so silence from
    /// now on is not the death of the node before [`crate::Timing::absence`] is over.
    PeerClosed,
    /// A write acknowledgement of the peer is older than T_io. To be repeated while it holds, more often than
    /// [`crate::Timing::stuck_memory`].
    PeerStuck,
    /// Resync is done: the peer's replica is clean. Answered by [`Action::AckSet`] with both nodes.
    PeerClean,
    /// Both acknowledge: every write acknowledged so far is held by the peer too and none will be acknowledged
    /// without it. Only now may the peer become a member again.
    AckPeer,
    /// The peer's replica is behind again (the session ended, a write was acknowledged solo).
    PeerDirty,
    /// Somebody says that the peer is dead.
    Proof(Proof),
    /// Own disks, QEMU and uplink are well (the state at start).
    Healthy,
    /// They are not.
    Faulty,
    /// The own hardware watchdog was proven, or its test failed.
    Watchdog(bool),
    /// The peer joins with this new store (pairing done, or a wiped node was confirmed by a person).
    Admit {
        /// The incarnation of the peer's store.
        incarnation: u64,
    },
    /// A witness was enrolled, the first or a new one.
    Enrol {
        /// Its identity.
        witness: WitnessId,
        /// Its store.
        incarnation: u64,
    },
    /// Volumes that one of the members no longer holds completely: the whole new list.
    Exceptions(Vec<Exception>),
    /// A planned leave: hand over to the peer, then [`Action::LeaveDone`]. VMs were moved or stopped before.
    Leave,
    /// The planned leave is called off.
    CancelLeave,
    /// A person takes responsibility: this node goes on alone with what it has, a new lineage begins.
    Force,
}

/// What became of an ask to the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessReply {
    /// It answered.
    Answer(Answer),
    /// No connection, or no answer in time.
    Unreachable,
}

/// Evidence that no VM of the peer can be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proof {
    /// The management controller says the power is off. Void as soon as the peer is heard again; to be repeated while
    /// the controller says so, because a heartbeat may have been on its way.
    PowerOff,
    /// The kernel of the peer said that it is dying.
    DyingGasp,
    /// The peer runs under a new boot id.
    NewBoot,
    /// The peer accepted or learned its own removal, after it stopped its VMs.
    Removed,
}

/// What the owner of the machine must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram.
    Send {
        /// On which path; `None` = on all of them.
        path: Option<u8>,
        /// What.
        datagram: Datagram,
    },
    /// Ask the witness; answer with [`Event::Witness`] and the same id, also when nobody answers.
    AskWitness {
        /// Names the ask.
        id: u64,
        /// The ask.
        ask: WitnessAsk,
    },
    /// Make the record durable in every place, then [`Event::Persisted`]. At most one is under way.
    Persist {
        /// Names the write.
        token: u64,
        /// What to write.
        record: Record,
    },
    /// Freeze all VMs and hold guest I/O, then [`Event::VmsFrozen`].
    Freeze,
    /// Let the VMs go on, then [`Event::VmsThawed`].
    Thaw,
    /// Kill all VMs, then [`Event::VmsKilled`].
    Kill {
        /// For the timeline.
        reason: KillReason,
    },
    /// This configuration is in force here, durably.
    Config(Config),
    /// Writes are acknowledged when all of these hold them. Told whenever it changes.
    AckSet(Members),
    /// This node is solo and the peer surely runs nothing: its VMs may be started here.
    PeerVmsAllowed,
    /// A condition a person should know of began.
    Alarm(Alarm),
    /// It ended.
    Clear(Alarm),
    /// An entry for the timeline.
    Note(Note),
    /// The planned leave is complete: the peer carries on and knows that nothing runs here.
    LeaveDone,
}

/// Why VMs are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KillReason {
    /// A newer configuration does not have this node.
    Removed,
    /// This node leaves.
    Leaving,
}

/// A lasting condition that keeps the pair from being protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Alarm {
    /// No heartbeat of the peer.
    PeerSilent,
    /// This path is down while another is up, or all are.
    PathDown(u8),
    /// The peer answers from a store that was never admitted.
    PeerUnadmitted,
    /// The witness does not answer, neither here nor to the peer.
    WitnessLost,
    /// The witness forgot what it had promised; enrol it again.
    WitnessRolledBack,
    /// The tie is held by a node while a witness is enrolled and both nodes are in sync.
    TieAt(NodeId),
    /// The clocks of the nodes drift apart beyond ρ; no lease is granted.
    ClockDrift,
    /// The register of this node cannot be written, or a write of it hangs.
    RegisterFailed,
    /// The peer's watchdog is not proven: its VMs start here only on proof of death.
    PeerUnfenced,
    /// Two different configurations carry one epoch.
    Conflict,
}

/// Why a change of configuration is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// A value was accepted and nobody told whether it was chosen.
    Unfinished,
    /// The peer is silent.
    PeerSilent,
    /// The peer does not acknowledge writes.
    PeerStuck,
    /// The register of the peer failed.
    PeerRegister,
    /// The peer's store is not the admitted one.
    PeerUnadmitted,
    /// This node leaves.
    Leaving,
    /// The peer is in sync again, or joins.
    PeerClean,
    /// The witness is out of reach of both.
    WitnessLost,
    /// The witness is back.
    WitnessBack,
    /// A witness is enrolled.
    Enrol,
    /// Volumes lost a disk or got one back.
    Exceptions,
    /// A proposal of an earlier moment may lie at the witness; the next epoch makes it void.
    Abandoned,
}

/// A timeline entry. All times are those of the node that tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// The peer is called silent now; it was last confirmed alive at this time.
    Detected {
        /// When it was last confirmed.
        last_alive: Time,
    },
    /// The peer is heard in both directions again.
    PeerHeard,
    /// A change is being decided.
    Deciding {
        /// The epoch it would get.
        epoch: u64,
        /// Why.
        why: Reason,
        /// Whose vote is asked; the own seat if none other is needed.
        target: Acceptor,
    },
    /// A configuration was chosen here or learned, and is durable.
    Chosen {
        /// Its epoch.
        epoch: u64,
        /// Its members.
        members: Members,
        /// Its tie holder.
        tie: Acceptor,
        /// Whether it was learned rather than decided here.
        learned: bool,
    },
    /// The peer may still run VMs until this time at the latest.
    FenceWait {
        /// When the fence is over without proof; `None` = only proof ends it.
        until: Option<Time>,
    },
    /// The peer surely runs nothing any more.
    FenceOver {
        /// What proved it; `None` = time.
        proof: Option<Proof>,
    },
    /// The right to run ended.
    LeaseLapsed,
    /// The right to run returned after a pause.
    Resumed,
    /// Nobody can reach the witness.
    WitnessLost,
    /// The witness answers again.
    WitnessBack,
}

/// Fixed facts about this node at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which node this is.
    pub me: NodeId,
    /// The pair.
    pub pair: u128,
    /// Boot id of this machine (not of the daemon).
    pub boot: u128,
    /// Peer-link paths in use, 1 to [`MAX_PATHS`].
    pub paths: u8,
    /// The time profile; the same on both nodes.
    pub timing: crate::timing::Timing,
    /// The own watchdog was proven at install.
    pub watchdog: bool,
    /// The peer's watchdog was proven, as far as the replicated document knows; the peer's heartbeats correct it.
    pub peer_watchdog: bool,
}
