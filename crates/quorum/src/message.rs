//! What travels: asks and answers of the register, and the one datagram between the nodes.

use serde::{Deserialize, Serialize};

use crate::types::{Acceptor, Ballot, Config, Time, WitnessId};
use dyad_types::NodeId;

/// "Decide the epoch after `base`": first and second phase in one message, for exactly one acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TryDecide {
    /// The pair this is about.
    pub pair: u128,
    /// Who proposes.
    pub sender: NodeId,
    /// The proposer's store.
    pub incarnation: u64,
    /// The newest chosen configuration the proposer knows.
    pub base: Config,
    /// The proposer already promised this to itself, durably. One target per ballot.
    pub ballot: Ballot,
    /// What the proposer itself had accepted when it promised.
    pub best: Option<(Ballot, Config)>,
    /// What to choose if neither acceptor had accepted anything.
    pub want: Config,
    /// The highest [`crate::Record::mark`] of the witness known to the proposer.
    pub seen: u64,
}

/// "This is the newest chosen configuration I know; what is yours?"
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Learn {
    /// The pair this is about.
    pub pair: u128,
    /// Who asks.
    pub sender: NodeId,
    /// The newest chosen configuration the sender knows.
    pub base: Config,
    /// The highest [`crate::Record::mark`] of the witness known to the sender.
    pub seen: u64,
}

/// All that is ever asked of the witness.
#[expect(clippy::large_enum_variant, reason = "asks live one at a time")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WitnessAsk {
    /// Read, and gossip of the newest configuration.
    Learn(Learn),
    /// A vote.
    TryDecide(TryDecide),
}

impl WitnessAsk {
    /// The pair this is about.
    pub fn pair(&self) -> u128 {
        match self {
            WitnessAsk::Learn(learn) => learn.pair,
            WitnessAsk::TryDecide(ask) => ask.pair,
        }
    }

    /// The node that asks.
    pub fn sender(&self) -> NodeId {
        match self {
            WitnessAsk::Learn(learn) => learn.sender,
            WitnessAsk::TryDecide(ask) => ask.sender,
        }
    }
}

/// An acceptor's answer, sent only after its record is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// Who answers.
    pub from: Acceptor,
    /// The store that answers.
    pub incarnation: u64,
    /// The witness that answers; [`WitnessId::NONE`] on nodes.
    pub witness: WitnessId,
    /// The witness's count of durable changes; 0 on nodes.
    pub mark: u64,
    /// The answer itself.
    pub verdict: Verdict,
}

/// The content of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Voted for the value at this ballot, for the epoch after the asked base.
    Accepted(Ballot, Config),
    /// Promised only: sender and acceptor together are no quorum. What was accepted before, if anything.
    Promise(Ballot, Option<(Ballot, Config)>),
    /// The ballot of the ask came too late: a higher one (the second) was promised.
    Nack(Ballot, Ballot),
    /// The asked epoch is long decided; this is the newest chosen configuration known here.
    Newer(Config),
    /// The reply to [`Learn`]: the newest chosen configuration known here.
    Base(Config),
    /// No vote, and why.
    Refused(Refusal),
}

/// Why an acceptor does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// This store is not the one the configuration admits in this seat.
    NotAVoter,
    /// The proposer's store is not the one the configuration admits.
    UnknownSender,
    /// The proposer has seen a newer record of this witness than the witness itself: it was rolled back.
    RolledBack,
    /// The value does not follow the base: epoch, lineage or shape are wrong.
    BadValue,
    /// Two different chosen configurations carry one epoch. This must never happen.
    Conflict,
}

/// One UDP packet between the nodes. Encoded with postcard it stays below 1200 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Datagram {
    /// The pair; a datagram of another pair is ignored.
    pub pair: u128,
    /// Who sends.
    pub from: NodeId,
    /// Boot id of the sending machine (not of the daemon): a new one proves that the old VMs are gone.
    pub boot: u128,
    /// When this daemon started, on the sender's clock: tells daemon restarts within one boot apart.
    pub started: Time,
    /// The sender's store.
    pub incarnation: u64,
    /// What is sent.
    pub body: Body,
}

/// The content of a [`Datagram`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Every `h` on every path.
    Heartbeat(Heartbeat),
    /// The reply to a heartbeat that asked for a lease.
    Grant(Echo),
    /// A vote is asked of the receiver.
    Ask(TryDecide),
    /// The vote.
    Answer(Answer),
    /// Please pass this to the witness; the number is the sender's.
    Relay(u64, WitnessAsk),
    /// The witness's answer to a relayed ask.
    Relayed(u64, Answer),
}

/// Says that the sender heard a heartbeat of the receiver: the receiver's own words, given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Echo {
    /// Boot id of the receiver, as heard.
    pub boot: u128,
    /// Start of the receiver's daemon, as heard.
    pub started: Time,
    /// `sent` of the newest heartbeat heard, on the receiver's clock.
    pub sent: Time,
}

/// The regular sign of life; each also asks for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up by one per round since the daemon started.
    pub seq: u64,
    /// When it was sent, on the sender's clock; an accepted lease runs from here.
    pub sent: Time,
    /// The newest chosen configuration of the sender, durable there.
    pub base: Config,
    /// The newest heartbeat heard on this path.
    pub heard: Option<Echo>,
    /// How the sender is.
    pub health: Health,
    /// The highest record count of the witness the sender has seen.
    pub mark: u64,
}

/// How a node is, as it tells its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// Own disks, QEMU and uplink are well.
    pub well: bool,
    /// The register can be written; a node whose register failed never votes again in this run, one whose register
    /// hangs does not vote until it is done.
    pub register: bool,
    /// A planned leave is running.
    pub leaving: bool,
    /// The hardware watchdog was proven to reset this machine.
    pub watchdog: bool,
    /// How long the witness has been out of direct reach, in milliseconds; 0 = it answers.
    pub witness_lost_ms: u32,
}
