//! Types of the register: acceptors, members, configurations, ballots, and the record that an acceptor keeps.

pub use dyad_types::BootTime;
use dyad_types::{Epoch, NodeId, VolumeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of time in nanoseconds.
pub type Nanos = u64;

/// Most volumes that one configuration can except. If there are more, the node with the failed disk is removed instead.
pub const MAX_EXCEPTIONS: usize = 16;

/// One of the three acceptors.
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

/// The in-sync set. It is never empty, so the empty set has no value.
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
    /// The set holding just `node`.
    pub fn only(node: NodeId) -> Members {
        match node {
            NodeId::A => Members::OnlyA,
            NodeId::B => Members::OnlyB,
        }
    }

    /// Whether `node` is in the set.
    pub fn has(self, node: NodeId) -> bool {
        self == Members::Both || self == Members::only(node)
    }

    /// The set with `node` added.
    pub fn with(self, node: NodeId) -> Members {
        if self.has(node) { self } else { Members::Both }
    }

    /// The union of two sets.
    pub fn union(self, other: Members) -> Members {
        if self == other { self } else { Members::Both }
    }

    /// The only member, or `None` when both are in.
    pub fn solo(self) -> Option<NodeId> {
        match self {
            Members::OnlyA => Some(NodeId::A),
            Members::OnlyB => Some(NodeId::B),
            Members::Both => None,
        }
    }
}

/// The identity of a witness, chosen at enrolment; 0 means "none enrolled".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WitnessId(pub u128);

impl WitnessId {
    /// No witness is enrolled.
    pub const NONE: WitnessId = WitnessId(0);
}

/// A volume that only one of the members holds completely, because a disk of the other failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exception {
    pub volume: VolumeId,
    /// The one node that holds every acknowledged write of it.
    pub holder: NodeId,
}

/// A chosen or proposed configuration: who is in sync and who holds the tie vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Grows by one at each membership change; 0 only in a store that knows no configuration yet.
    pub epoch: Epoch,
    /// The in-sync set.
    pub members: Members,
    /// The holder of the tie vote.
    pub tie: Acceptor,
    /// The node that asks first for the removal of the other when they cannot hear each other.
    pub lead: NodeId,
    /// The store of A, B and W that may vote; 0 = none admitted. A wiped store gets another incarnation.
    pub incarnations: [u64; 3],
    /// The witness of this configuration.
    pub witness: WitnessId,
    /// Volumes of which one member does not hold every acknowledged write, at most [`MAX_EXCEPTIONS`].
    pub exceptions: Vec<Exception>,
    /// Grows when an operator forces a node, and only then. A higher lineage outranks every epoch of a lower one.
    pub lineage: u64,
}

impl Config {
    /// What a fresh store holds. It gives no right: it admits no store.
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

    /// Epoch 1 of a new pair: `node` alone, holding the tie.
    pub fn first(node: NodeId, incarnation: u64) -> Config {
        let mut config = Config::none();
        config.epoch = Epoch(1);
        config.members = Members::only(node);
        config.tie = Acceptor::from(node);
        config.lead = node;
        config.incarnations[node.index()] = incarnation;
        config
    }

    /// Order of chosen configurations: lineage first, then epoch.
    pub fn rank(&self) -> (u64, Epoch) {
        (self.lineage, self.epoch)
    }

    /// Whether a pair was ever set up.
    pub fn exists(&self) -> bool {
        self.epoch > Epoch(0)
    }

    /// Whether the `voters` are a quorum for deciding what follows this configuration.
    ///
    /// votes(S) = |S ∩ {A,B}| + 1 if the tie is in S; a quorum has two. Any two quorums meet.
    pub fn quorum(&self, voters: &[Acceptor]) -> bool {
        let has = |acceptor: Acceptor| voters.contains(&acceptor);
        let votes = usize::from(has(Acceptor::A)) + usize::from(has(Acceptor::B)) + usize::from(has(self.tie));
        votes >= 2
    }

    /// Why this configuration may not be chosen; `None` = it may. Every acceptor checks this before it votes.
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

/// A ballot. Rounds grow; two nodes never use the same ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// 0 = no ballot.
    pub round: u64,
    /// The node that proposes.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than every real ballot.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId::A };
}

/// What one acceptor keeps. It is durable before anything that depends on it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Random number of this store, never 0. A wiped store gets another.
    pub incarnation: u64,
    /// On the witness: its own identity. On nodes: [`WitnessId::NONE`].
    pub witness: WitnessId,
    /// On the witness: count of its durable changes. On nodes: the highest such count seen, to detect a rolled-back witness.
    pub mark: u64,
    /// The newest configuration known to be chosen.
    pub base: Config,
    /// No ballot at or below this gets a vote for the epoch after `base`.
    pub promised: Ballot,
    /// What this acceptor accepted for the epoch after `base`.
    pub accepted: Option<(Ballot, Config)>,
}

impl Record {
    /// A new store. It has no vote until a configuration admits `incarnation` (random, not 0).
    pub fn fresh(incarnation: u64) -> Record {
        Record {
            incarnation,
            witness: WitnessId::NONE,
            mark: 0,
            base: Config::none(),
            promised: Ballot::ZERO,
            accepted: None,
        }
    }

    /// The record of the first node of a new pair: epoch 1, solo, tie held by itself.
    pub fn first_node(node: NodeId, incarnation: u64) -> Record {
        Record { base: Config::first(node, incarnation), ..Record::fresh(incarnation) }
    }

    /// The record of a newly enrolled witness.
    pub fn witness(id: WitnessId, incarnation: u64) -> Record {
        Record { witness: id, ..Record::fresh(incarnation) }
    }

    /// Whether this store may vote from `acceptor` on the epoch after its base.
    pub fn votes(&self, acceptor: Acceptor) -> bool {
        self.base.exists()
            && self.base.incarnations[acceptor.index()] == self.incarnation
            && (acceptor != Acceptor::W || self.base.witness == self.witness)
    }

    /// Moves to a newer chosen configuration: promises and acceptances belonged to the old epoch.
    pub fn adopt(&mut self, base: Config) {
        let same_witness = base.witness == self.base.witness && base.incarnations[2] == self.base.incarnations[2];
        if !same_witness && self.witness == WitnessId::NONE {
            // The count was that of another witness.
            self.mark = 0;
        }
        self.base = base;
        self.promised = Ballot::ZERO;
        self.accepted = None;
    }
}
