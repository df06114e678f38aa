//! What the machine and its neighbourhood look like, as far as the questions need it.

/// Everything the checks compare an answer with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Disks that could become pool disks.
    pub disks: Vec<Disk>,
    /// Names of the network ports that could carry management; empty when the network is not ours to set up.
    pub ports: Vec<String>,
    /// Cables to the other node that were found.
    pub links: Vec<Link>,
    /// First nodes that wait for their second.
    pub offers: Vec<Offer>,
}

/// A disk that could become a pool disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Stable path, such as `/dev/vdb`.
    pub path: String,
    /// Model and serial number for people; may be empty.
    pub model: String,
    /// Size in bytes.
    pub bytes: u64,
    /// What is on it.
    pub content: DiskContent,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskContent {
    /// Nothing.
    Blank,
    /// Somebody's data, described in a few words.
    Foreign(String),
    /// A pool disk of a pair.
    Pool {
        /// Name of the pair.
        pair: String,
        /// Name of the node.
        node: String,
    },
}

/// A cable that may carry the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of the port.
    pub name: String,
    /// Whether the cable carries a signal.
    pub up: bool,
}

/// A first node that waits for its second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Id of the pair, in hexadecimal.
    pub pair_id: String,
    /// Name of the pair.
    pub pair: String,
    /// Name of the first node.
    pub node: String,
}
