//! The identifiers of the questions.

/// Names a question. The variants are in the order in which the questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// Begin a new pair, or join one.
    Role,
    /// Which pair to join, if more than one was discovered.
    Offer,
    /// The pairing code that the first node shows.
    Code,
    /// The disks for the pool.
    Disks,
    /// The typed confirmation that these disks are erased.
    Erase,
    /// The management port.
    Port,
    /// How the management port gets its address.
    Network,
    /// The fixed address with its prefix length.
    Address,
    Gateway,
    Dns,
    /// The ports of the peer link.
    PeerLinks,
    Pair,
    Node,
    Password,
    /// The witness, or the word `later`.
    Witness,
    /// The one-time code of the witness.
    WitnessCode,
}
