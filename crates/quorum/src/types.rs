//! The words of the register: seats, members, configurations, ballots and the record an acceptor keeps.

use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

/// Nanoseconds on CLOCK_BOOTTIME of the node that holds the value; never compared between nodes.
pub type Time = u64;

/// A length of time in nanoseconds.
pub type Nanos = u64;

/// Most volumes one configuration can except; one more and the node with the failed disk is dropped instead.
pub const MAX_EXCEPTIONS: usize = 16;

/// One of the three acceptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acceptor {
    /// Node A.
    A,
    /// Node B.
    B,
    /// The witness.
    W,
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

    /// The node in this seat, or `None` for the witness.
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
    /// `{A,B}`.
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
    /// The volume.
    pub volume: u64,
    /// The one node that holds every acknowledged write of it.
    pub holder: NodeId,
}

/// A chosen or proposed configuration: who is in sync and who holds the tie vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Grows by one at each membership change; 0 only in a store that knows no configuration yet.
    pub epoch: u64,
    /// The in-sync set.
    pub members: Members,
    /// Who holds the tie vote.
    pub tie: Acceptor,
    /// The preferred side: it asks first when both nodes are alive and cannot hear each other.
    pub lead: NodeId,
    /// Which store of A, B and W may vote; 0 = none admitted. A wiped store comes back with another number.
    pub incarnations: [u64; 3],
    /// The witness of this configuration.
    pub witness: WitnessId,
    /// Volumes with a smaller in-sync set, at most [`MAX_EXCEPTIONS`].
    pub exceptions: Vec<Exception>,
    /// Grows only when an operator forces; a higher lineage outranks every epoch of a lower one.
    pub lineage: u64,
}

impl Config {
    /// What a fresh store holds: no member could act on it, because no incarnation is 0.
    pub fn none() -> Config {
        Config {
            epoch: 0,
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
        config.epoch = 1;
        config.members = Members::only(node);
        config.tie = Acceptor::from(node);
        config.lead = node;
        config.incarnations[node.index()] = incarnation;
        config
    }

    /// Order of chosen configurations: lineage first, then epoch.
    pub fn rank(&self) -> (u64, u64) {
        (self.lineage, self.epoch)
    }

    /// Whether a pair was ever set up.
    pub fn exists(&self) -> bool {
        self.epoch > 0
    }

    /// Whether the `voters` are a quorum for deciding what follows this configuration.
    ///
    /// votes(S) = |S ∩ {A,B}| + 1 if the tie is in S; a quorum has two. Any two quorums meet.
    pub fn quorum(&self, voters: &[Acceptor]) -> bool {
        let has = |seat: Acceptor| voters.contains(&seat);
        let votes = usize::from(has(Acceptor::A)) + usize::from(has(Acceptor::B)) + usize::from(has(self.tie));
        votes >= 2
    }

    /// Why this configuration may not be voted for, if so. Checked by every acceptor, whoever proposes.
    pub fn fault(&self) -> Option<&'static str> {
        let member_seats = match self.members.solo() {
            Some(node) => [node, node],
            None => [NodeId::A, NodeId::B],
        };
        if self.epoch == 0 {
            Some("epoch 0 is never chosen")
        } else if self.exceptions.len() > MAX_EXCEPTIONS {
            Some("too many exceptions")
        } else if !self.members.has(self.lead) {
            Some("the lead is not in sync")
        } else if self.members.solo().is_some_and(|node| self.tie != Acceptor::from(node)) {
            Some("a solo node must hold the tie")
        } else if self.tie == Acceptor::W && self.witness == WitnessId::NONE {
            Some("the tie is at a witness that is not enrolled")
        } else if member_seats.iter().any(|node| self.incarnations[node.index()] == 0) {
            Some("a member has no admitted store")
        } else {
            None
        }
    }
}

/// A ballot of one register. Rounds grow; two nodes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// 0 = no ballot.
    pub round: u64,
    /// Who proposes.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than every real ballot.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId::A };
}

/// What one acceptor keeps, durable before anything that depends on it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The number of this store; a wiped store gets another. Never 0.
    pub incarnation: u64,
    /// On the witness: its own identity. On nodes: [`WitnessId::NONE`].
    pub witness: WitnessId,
    /// On the witness: counts its durable changes. On nodes: the highest such count seen, to detect a rolled-back witness.
    pub mark: u64,
    /// The newest configuration known to be chosen.
    pub base: Config,
    /// No ballot at or below this gets a vote for the epoch after `base`.
    pub promised: Ballot,
    /// What this acceptor accepted for the epoch after `base`.
    pub accepted: Option<(Ballot, Config)>,
}

impl Record {
    /// A store that knows nothing and votes on nothing until a configuration admits `incarnation` (random, not 0).
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

    /// Whether this store may vote from `seat` on the epoch after its base.
    pub fn votes(&self, seat: Acceptor) -> bool {
        self.base.exists()
            && self.base.incarnations[seat.index()] == self.incarnation
            && (seat != Acceptor::W || self.base.witness == self.witness)
    }

    /// Moves to a newer chosen configuration: promises and acceptances belonged to the old epoch.
    pub fn adopt(&mut self, base: Config) {
        let same_witness = base.witness == self.base.witness && base.incarnations[2] == self.base.incarnations[2];
        if !same_witness && self.witness == WitnessId::NONE {
            // The count seen was that of another witness.
            self.mark = 0;
        }
        self.base = base;
        self.promised = Ballot::ZERO;
        self.accepted = None;
    }
}
