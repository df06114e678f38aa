//! The identifiers of the setup questions.

/// Identifies a question. The variants are in the order in which the questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuestionId {
    /// The role of this node: to begin a new pair, or to join one.
    Role,
    /// The pair to join, if more than one was discovered.
    Offer,
    /// The pairing code that the first node shows.
    Code,
    /// The disks for the pool.
    Disks,
    /// The typed confirmation that these disks are erased.
    Erase,
    /// The management port.
    Port,
    /// The source of the management port's address: DHCP or a fixed address.
    Network,
    /// The fixed address with its prefix length.
    Address,
    /// The default gateway of a fixed address.
    Gateway,
    /// The name servers of a fixed address.
    Dns,
    /// The ports of the peer link.
    PeerLinks,
    /// The name of the new pair.
    Pair,
    /// The name that this node gets, for people.
    Node,
    /// The administrator's password.
    Password,
    /// The address of the witness, or the word `later`.
    Witness,
    /// The one-time code of the witness.
    WitnessCode,
}
