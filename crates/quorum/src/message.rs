//! Messages: requests to an acceptor and its replies, and the datagrams between the nodes. Bytes: `docs/quorum.md`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{Acceptor, Ballot, BootTime, Config, WitnessId};
use dyad_types::{NodeId, number};

number! {
    /// Identifies one request to the witness. Each node counts its own.
    pub struct WitnessRequestId;
}

/// Request for a vote on the epoch after `base`: both phases of Paxos in one message, for exactly one acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TryDecide {
    pub pair: u128,
    /// The node that proposes the configuration.
    pub sender: NodeId,
    /// Incarnation of the proposer's store.
    pub incarnation: u64,
    /// The newest chosen configuration the proposer knows.
    pub base: Config,
    /// The proposer has promised this ballot to itself, durably. A ballot is sent to one acceptor only.
    pub ballot: Ballot,
    /// The value that the proposer itself had accepted when it promised `ballot`.
    pub accepted: Option<(Ballot, Config)>,
    /// The value to choose if neither the proposer nor the receiver has accepted one.
    pub want: Config,
    /// The highest [`crate::AcceptorRecord::witness_changes`] of the witness known to the proposer.
    pub witness_changes: u64,
}

/// A read of the witness: it carries the newest chosen configuration that the sender knows; the reply carries the
/// newest configuration that the witness knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Learn {
    pub pair: u128,
    pub sender: NodeId,
    /// The newest chosen configuration the sender knows.
    pub base: Config,
    /// The highest [`crate::AcceptorRecord::witness_changes`] of the witness known to the sender.
    pub witness_changes: u64,
}

/// A request to the witness as an acceptor.
#[expect(clippy::large_enum_variant, reason = "requests live one at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WitnessRequest {
    Learn(Learn),
    TryDecide(TryDecide),
}

impl WitnessRequest {
    pub fn pair(&self) -> u128 {
        match self {
            WitnessRequest::Learn(learn) => learn.pair,
            WitnessRequest::TryDecide(request) => request.pair,
        }
    }

    pub fn sender(&self) -> NodeId {
        match self {
            WitnessRequest::Learn(learn) => learn.sender,
            WitnessRequest::TryDecide(request) => request.sender,
        }
    }
}

/// The reply of an acceptor, sent only after its record is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AcceptorReply {
    pub from: Acceptor,
    /// Incarnation of the acceptor's store.
    pub incarnation: u64,
    /// Identity of the witness that replies; [`WitnessId::NONE`] from nodes.
    pub witness: WitnessId,
    /// [`crate::AcceptorRecord::witness_changes`] of the witness; 0 from nodes.
    pub witness_changes: u64,
    pub body: ReplyBody,
}

/// The content of an [`AcceptorReply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplyBody {
    /// The acceptor voted for this value at this ballot, for the epoch after the base of the request.
    Accepted(Ballot, Config),
    /// The acceptor promised this ballot and accepted nothing, because it and the sender together are no quorum. The
    /// second field is the value that it had accepted before.
    Promise(Ballot, Option<(Ballot, Config)>),
    /// No vote: the ballot of the request (the first) is not above the promised one (the second).
    Nack(Ballot, Ballot),
    /// No vote: the acceptor knows a newer chosen configuration than the base of the request. This is the newest one it
    /// knows.
    Newer(Config),
    /// The reply to [`Learn`]: the newest chosen configuration known to the acceptor.
    Base(Config),
    /// The acceptor does not vote.
    Refused(VoteRefusal),
}

/// The reason for which an acceptor does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VoteRefusal {
    /// The configuration does not admit this store of the acceptor.
    NotAVoter,
    /// The configuration does not admit this store of the proposer, or the ballot is not one of the proposer's.
    UnknownSender,
    /// The proposer knows of more changes of this witness than the witness itself holds: the witness was rolled back to
    /// an older record.
    RolledBack,
    /// The value cannot follow the base (epoch, lineage or [`Config::fault`] is wrong), or the base itself has a fault.
    BadValue,
    /// Two different chosen configurations have the same rank. This must never happen.
    Conflict,
}

/// One UDP datagram between the nodes, encoded with postcard: at most 1136 bytes while volume ids are below 2,097,152,
/// and at most 1400 bytes with any volume ids (`tests/wire.rs`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Datagram {
    /// The pair of the sender. A datagram of another pair is ignored.
    pub pair: u128,
    pub from: NodeId,
    /// Boot id of the sending machine, not of the daemon: a new one proves that VMs of an earlier boot are gone.
    pub boot: u128,
    /// Start time of the sending daemon, on the sender's clock: distinguishes runs of the daemon within one boot.
    pub started: BootTime,
    /// Incarnation of the sender's store.
    pub incarnation: u64,
    pub body: DatagramBody,
}

/// The content of a [`Datagram`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DatagramBody {
    /// Sent on every path, at least once per [`crate::Timing::heartbeat_interval`].
    Heartbeat(Heartbeat),
    /// Grants the receiver a lease: the reply to the heartbeat that the echo identifies.
    Grant(Echo),
    /// Requests the vote of the receiver.
    TryDecide(TryDecide),
    /// The reply to [`DatagramBody::TryDecide`].
    Reply(AcceptorReply),
    /// Asks the receiver to pass this request on to the witness. The id is the sender's.
    Relay(WitnessRequestId, WitnessRequest),
    /// The witness's reply to a relayed request, with the id of the [`DatagramBody::Relay`].
    RelayReply(WitnessRequestId, AcceptorReply),
}

/// Identifies a received heartbeat. It is sent back to the sender of that heartbeat, which thereby knows that both
/// directions of the path work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Echo {
    /// Boot id of the heartbeat's sender.
    pub boot: u128,
    /// Start time of the daemon of the heartbeat's sender.
    pub started: BootTime,
    /// [`Heartbeat::sent`] of the heartbeat, on the clock of its sender.
    pub sent: BootTime,
}

/// Shows that the sender is alive, carries its state, and requests a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counted from 1 since the daemon started; the same on all paths.
    pub number: u64,
    /// Time of sending, on the sender's clock. A lease granted for this heartbeat runs from this time.
    pub sent: BootTime,
    /// The newest chosen configuration that is durable at the sender.
    pub base: Config,
    /// The newest heartbeat that the sender has received on this path.
    pub heard: Option<Echo>,
    pub health: Health,
    /// The highest [`crate::AcceptorRecord::witness_changes`] of the witness known to the sender.
    pub witness_changes: u64,
    /// The pool of the sender answers its commands: the newest of [`crate::Event::StorageAnswers`] and
    /// [`crate::Event::StorageStuck`]. It is the last field of the datagram, because a node of an older version does not
    /// send it and ignores the byte: a missing value counts as `true`.
    #[serde(deserialize_with = "true_if_missing")]
    pub storage_answers: bool,
}

/// Reads the last field of a message, which an older version does not send.
fn true_if_missing<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    Ok(bool::deserialize(input).unwrap_or(true))
}

/// The state of a node as it reports it to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// Disks, QEMU and uplink of the node work: the newest of [`crate::Event::Healthy`] and [`crate::Event::Faulty`].
    pub healthy: bool,
    /// The register can be written. A node whose register failed does not vote again in this run of the daemon; a node
    /// whose register hangs does not vote until the write is done.
    pub register_writable: bool,
    /// A planned leave is under way.
    pub leaving: bool,
    /// The hardware watchdog of the node is proven: a test has shown that it resets the node in time.
    pub watchdog_proven: bool,
    /// Milliseconds since which the witness has not answered the node directly; 0 = it answers, or was not asked yet.
    pub witness_lost_ms: u32,
}
