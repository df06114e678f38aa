//! Types of the register: acceptors, members, configurations, ballots, and the record that an acceptor keeps.

pub use dyad_types::BootTime;
use dyad_types::{Epoch, NodeId, VolumeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of time in nanoseconds.
pub type Nanos = u64;

/// Maximum number of [`Exception`]s in a configuration. If more volumes are incomplete, the node that lacks most of
/// them is removed instead.
pub const MAX_EXCEPTIONS: usize = 16;

/// One of the three voters: node A, node B, or the witness W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acceptor {
    A,
    B,
    W,
}

impl fmt::Display for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acceptor::A => "A",
            Acceptor::B => "B",
            Acceptor::W => "W",
        })
    }
}

impl From<NodeId> for Acceptor {
    fn from(node: NodeId) -> Acceptor {
        match node {
            NodeId::A => Acceptor::A,
            NodeId::B => Acceptor::B,
        }
    }
}

impl Acceptor {
    /// 0, 1, 2: the index into [`Config::incarnations`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The node that is this acceptor; `None` for the witness.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Acceptor::A => Some(NodeId::A),
            Acceptor::B => Some(NodeId::B),
            Acceptor::W => None,
        }
    }
}

/// The in-sync set: the nodes whose replicas hold every acknowledged write. It is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Members {
    /// `{A}`: A is solo.
    OnlyA,
    /// `{B}`: B is solo.
    OnlyB,
    /// `{A,B}`: both are in sync.
    Both,
}

impl Members {
    /// The set that contains `node` alone.
    pub fn only(node: NodeId) -> Members {
        match node {
            NodeId::A => Members::OnlyA,
            NodeId::B => Members::OnlyB,
        }
    }

    pub fn has(self, node: NodeId) -> bool {
        self == Members::Both || self == Members::only(node)
    }

    /// The set with `node` added.
    pub fn with(self, node: NodeId) -> Members {
        if self.has(node) { self } else { Members::Both }
    }

    pub fn union(self, other: Members) -> Members {
        if self == other { self } else { Members::Both }
    }

    /// The only member; `None` if both nodes are members.
    pub fn solo(self) -> Option<NodeId> {
        match self {
            Members::OnlyA => Some(NodeId::A),
            Members::OnlyB => Some(NodeId::B),
            Members::Both => None,
        }
    }
}

/// Identity of a witness: a random number that its store gets when it is created or found to be a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WitnessId(pub u128);

impl WitnessId {
    /// No witness is enrolled.
    pub const NONE: WitnessId = WitnessId(0);
}

/// A volume of which only one member holds every acknowledged write, because a disk of the other member failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exception {
    pub volume: VolumeId,
    /// The member that holds every acknowledged write of the volume.
    pub holder: NodeId,
}

/// A chosen or proposed configuration of the pair: the members, the holder of the tie vote, and the stores that may
/// vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Grows by one with each configuration; 0 only in a store that knows no configuration yet.
    pub epoch: Epoch,
    pub members: Members,
    /// The holder of the tie vote.
    pub tie: Acceptor,
    /// The member that asks first for the removal of the other when the nodes cannot hear each other.
    pub lead: NodeId,
    /// Incarnations of the stores of A, B and W that may vote; 0 = no store admitted. A wiped store gets another
    /// incarnation.
    pub incarnations: [u64; 3],
    /// The enrolled witness, or [`WitnessId::NONE`].
    pub witness: WitnessId,
    /// Volumes of which one member does not hold every acknowledged write, at most [`MAX_EXCEPTIONS`].
    pub exceptions: Vec<Exception>,
    /// Grows by one when an operator forces a node to go on alone, and only then. A higher lineage outranks every epoch
    /// of a lower one.
    pub lineage: u64,
}

impl Config {
    /// The base of a new store: epoch 0. It admits no store, so it gives no right to vote or to run VMs.
    pub fn none() -> Config {
        Config {
            epoch: Epoch(0),
            members: Members::Both,
            tie: Acceptor::W,
            lead: NodeId::A,
            incarnations: [0; 3],
            witness: WitnessId::NONE,
            exceptions: Vec::new(),
            lineage: 0,
        }
    }

    /// Epoch 1 of a new pair: `node` is the only member and holds the tie vote.
    pub fn first(node: NodeId, incarnation: u64) -> Config {
        let mut config = Config::none();
        config.epoch = Epoch(1);
        config.members = Members::only(node);
        config.tie = Acceptor::from(node);
        config.lead = node;
        config.incarnations[node.index()] = incarnation;
        config
    }

    /// The key that orders chosen configurations: lineage first, then epoch.
    pub fn rank(&self) -> (u64, Epoch) {
        (self.lineage, self.epoch)
    }

    /// Whether this is a configuration of a pair: `false` for [`Config::none`].
    pub fn exists(&self) -> bool {
        self.epoch > Epoch(0)
    }

    /// Whether the `voters` are a quorum for the decision on the configuration that follows this one.
    ///
    /// votes(S) = |S ∩ {A,B}| + 1 if the tie holder is in S. A quorum has at least 2 of the 3 votes, so any two quorums
    /// have a common acceptor.
    pub fn is_quorum(&self, voters: &[Acceptor]) -> bool {
        let has = |acceptor: Acceptor| voters.contains(&acceptor);
        let votes = usize::from(has(Acceptor::A)) + usize::from(has(Acceptor::B)) + usize::from(has(self.tie));
        votes >= 2
    }

    /// The reason for which this configuration may not be chosen; `None` = it may. Every acceptor checks this before it
    /// votes.
    pub fn fault(&self) -> Option<&'static str> {
        let members = match self.members.solo() {
            Some(node) => [node, node],
            None => [NodeId::A, NodeId::B],
        };
        if self.epoch == Epoch(0) {
            Some("epoch 0 is never chosen")
        } else if self.exceptions.len() > MAX_EXCEPTIONS {
            Some("too many exceptions")
        } else if !self.members.has(self.lead) {
            Some("the lead is not in sync")
        } else if self.members.solo().is_some_and(|node| self.tie != Acceptor::from(node)) {
            Some("a solo node must hold the tie")
        } else if self.tie == Acceptor::W && self.witness == WitnessId::NONE {
            Some("the tie is at a witness that is not enrolled")
        } else if members.iter().any(|node| self.incarnations[node.index()] == 0) {
            Some("a member has no admitted store")
        } else {
            None
        }
    }
}

/// Number of one attempt to decide an epoch, ordered by round, then node. Two nodes never use the same ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counted from 1 in each epoch; 0 = no ballot.
    pub round: u64,
    /// The node that makes the attempt.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than every real ballot.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId::A };
}

/// The durable state of one acceptor. It is durable before any message that depends on it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AcceptorRecord {
    /// Random number of this store, never 0. A wiped store gets another.
    pub incarnation: u64,
    /// On the witness: its own identity. On nodes: [`WitnessId::NONE`].
    pub witness: WitnessId,
    /// On the witness: the number of durable changes of this record. On nodes: the highest such number that the node
    /// has heard of, to detect a witness that was restored from a backup.
    pub witness_changes: u64,
    /// The newest configuration known to be chosen.
    pub base: Config,
    /// No ballot at or below this one gets a vote for the epoch after `base`.
    pub promised: Ballot,
    /// The value that this acceptor accepted for the epoch after `base`, and the ballot of that vote.
    pub accepted: Option<(Ballot, Config)>,
}

impl AcceptorRecord {
    /// The record of a new store. It has no vote until a configuration admits `incarnation`, which is random and not 0.
    pub fn fresh(incarnation: u64) -> AcceptorRecord {
        AcceptorRecord {
            incarnation,
            witness: WitnessId::NONE,
            witness_changes: 0,
            base: Config::none(),
            promised: Ballot::ZERO,
            accepted: None,
        }
    }

    /// The record of the first node of a new pair: its base is [`Config::first`].
    pub fn first_node(node: NodeId, incarnation: u64) -> AcceptorRecord {
        AcceptorRecord { base: Config::first(node, incarnation), ..AcceptorRecord::fresh(incarnation) }
    }

    /// The record of a newly enrolled witness.
    pub fn witness(id: WitnessId, incarnation: u64) -> AcceptorRecord {
        AcceptorRecord { witness: id, ..AcceptorRecord::fresh(incarnation) }
    }

    /// Whether the base admits this store as `acceptor`: then it may vote on the epoch after its base.
    pub fn may_vote_as(&self, acceptor: Acceptor) -> bool {
        self.base.exists()
            && self.base.incarnations[acceptor.index()] == self.incarnation
            && (acceptor != Acceptor::W || self.base.witness == self.witness)
    }

    /// Makes a newer chosen configuration the base. The promise and the accepted value belonged to the old epoch and
    /// are dropped.
    pub fn adopt(&mut self, base: Config) {
        let same_witness = base.witness == self.base.witness && base.incarnations[2] == self.base.incarnations[2];
        if !same_witness && self.witness == WitnessId::NONE {
            // This record is a node's, and the number is that of the former witness.
            self.witness_changes = 0;
        }
        self.base = base;
        self.promised = Ballot::ZERO;
        self.accepted = None;
    }
}
