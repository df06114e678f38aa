//! The disks, ports and discovered pairs of a node, to which answers refer.

use dyad_types::DiskContent;

/// The node's disks and ports and the discovered pairs, against which answers are checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Disks that may become pool disks.
    pub disks: Vec<Disk>,
    /// Names of the ports that may be the management port. Empty: the host's network is not managed by Dyad.
    pub ports: Vec<String>,
    /// Ports that may belong to the peer link.
    pub links: Vec<Link>,
    /// The discovered first nodes that wait for a second node.
    pub offers: Vec<Offer>,
}

/// A disk that may become a pool disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Device path, such as `/dev/vdb`.
    pub path: String,
    /// Model and serial number, for people; may be empty.
    pub model: String,
    pub bytes: u64,
    pub content: DiskContent,
}

/// A port that may belong to the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of the port.
    pub name: String,
    /// Whether the cable carries a signal.
    pub up: bool,
}

/// The first node of a pair, waiting for its second node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The pair's id, in hexadecimal.
    pub pair_id: String,
    pub pair: String,
    /// Name of the first node.
    pub node: String,
}
