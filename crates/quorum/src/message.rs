//! Messages: requests to an acceptor and its replies, and the datagrams between the nodes. Bytes: `docs/quorum.md`.

use serde::{Deserialize, Serialize};

use crate::types::{Acceptor, Ballot, BootTime, Config, WitnessId};
use dyad_types::{NodeId, number};

number! {
    /// Identifies one request to the witness. Each node counts its own.
    pub struct WitnessRequestId;
}

/// "Decide the epoch after `base`": both phases of Paxos in one message, for exactly one acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TryDecide {
    pub pair: u128,
    /// The node that proposes.
    pub sender: NodeId,
    /// Incarnation of the proposer's store.
    pub incarnation: u64,
    /// The newest chosen configuration the proposer knows.
    pub base: Config,
    /// The proposer has promised this ballot to itself, durably. One ballot has one target.
    pub ballot: Ballot,
    /// What the proposer itself had accepted when it promised.
    pub best: Option<(Ballot, Config)>,
    /// What to choose if neither of the two acceptors has accepted anything.
    pub want: Config,
    /// The highest [`crate::Record::mark`] of the witness known to the proposer.
    pub seen: u64,
}

/// "This is the newest chosen configuration I know; which is yours?"
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Learn {
    pub pair: u128,
    pub sender: NodeId,
    /// The newest chosen configuration the sender knows.
    pub base: Config,
    /// The highest [`crate::Record::mark`] of the witness known to the sender.
    pub seen: u64,
}

/// A request to the witness. There is no other.
#[expect(clippy::large_enum_variant, reason = "requests live one at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WitnessRequest {
    /// A read. It also carries the newest configuration to the witness.
    Learn(Learn),
    /// A request for a vote.
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
    /// The witness's count of durable changes; 0 from nodes.
    pub mark: u64,
    pub body: ReplyBody,
}

/// The content of an [`AcceptorReply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplyBody {
    /// The acceptor voted for this value at this ballot, for the epoch after the base of the request.
    Accepted(Ballot, Config),
    /// The acceptor promised this ballot and accepted nothing, because it and the sender together are no quorum. With
    /// what it had accepted before, if anything.
    Promise(Ballot, Option<(Ballot, Config)>),
    /// No vote: the ballot of the request (the first) is not above the promised one (the second).
    Nack(Ballot, Ballot),
    /// The requested epoch is decided already; this is the newest chosen configuration known to the acceptor.
    Newer(Config),
    /// The reply to [`Learn`]: the newest chosen configuration known to the acceptor.
    Base(Config),
    /// The acceptor does not vote.
    Refused(VoteRefusal),
}

/// Why an acceptor does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VoteRefusal {
    /// The configuration does not admit this store of the acceptor.
    NotAVoter,
    /// The configuration does not admit this store of the proposer.
    UnknownSender,
    /// The proposer has seen a higher mark of this witness than the witness itself holds: the witness was rolled back.
    RolledBack,
    /// The value cannot follow the base: epoch, lineage or [`Config::fault`] is wrong.
    BadValue,
    /// Two different chosen configurations have one rank. This must never happen.
    Conflict,
}

/// One UDP datagram between the nodes: postcard, at most 1136 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Datagram {
    /// A datagram of another pair is ignored.
    pub pair: u128,
    pub from: NodeId,
    /// Boot id of the sending machine, not of the daemon: a new one proves that VMs of an earlier boot are gone.
    pub boot: u128,
    /// When the sending daemon started, on the sender's clock: distinguishes daemons of one boot.
    pub started: BootTime,
    /// Incarnation of the sender's store.
    pub incarnation: u64,
    pub body: DatagramBody,
}

/// The content of a [`Datagram`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DatagramBody {
    /// Sent every [`crate::Timing::heartbeat`] on every path.
    Heartbeat(Heartbeat),
    /// Grants a lease: the reply to a heartbeat.
    Grant(Echo),
    /// A vote is requested from the receiver.
    TryDecide(TryDecide),
    /// The reply to [`DatagramBody::TryDecide`].
    Reply(AcceptorReply),
    /// The receiver is asked to pass this request on to the witness. The number is the sender's id of it.
    Relay(WitnessRequestId, WitnessRequest),
    /// The witness's reply to a relayed request, with the same number.
    RelayReply(WitnessRequestId, AcceptorReply),
}

/// Identifies a heartbeat that was received: the sender gets these numbers of its own back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Echo {
    /// Boot id of the heartbeat's sender.
    pub boot: u128,
    /// When the daemon of the heartbeat's sender started.
    pub started: BootTime,
    /// [`Heartbeat::sent`] of the newest heartbeat received, on the clock of its sender.
    pub sent: BootTime,
}

/// Says that the sender is alive and requests a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up by one per round since the daemon started.
    pub number: u64,
    /// When it was sent, on the sender's clock. A lease granted for it runs from here.
    pub sent: BootTime,
    /// The newest chosen configuration that is durable at the sender.
    pub base: Config,
    /// The newest heartbeat received on this path.
    pub heard: Option<Echo>,
    pub health: Health,
    /// The highest [`crate::Record::mark`] of the witness known to the sender.
    pub mark: u64,
}

/// What a node says of itself to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// Its disks, QEMU and uplink work.
    pub healthy: bool,
    /// Its register can be written. A node whose register failed does not vote again in this run; a node whose register
    /// hangs does not vote until the write is done.
    pub register: bool,
    /// A planned leave is under way.
    pub leaving: bool,
    /// Its hardware watchdog is proven.
    pub watchdog: bool,
    /// For how long the witness has not answered it directly, in milliseconds; 0 = it answers.
    pub witness_lost_ms: u32,
}
