use serde::{Deserialize, Serialize};

/// The content of a disk before setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskContent {
    /// The places of partition tables and labels are all zeros.
    Blank,
    /// Data that does not belong to a pool, with a description for people. Setup erases it only after the operator has
    /// typed a confirmation.
    Foreign(String),
    /// A pool disk of a pair.
    Pool {
        /// The pair's name, from the label of the disk.
        pair: String,
        /// The node's name, from the label of the disk.
        node: String,
        /// Id of the pair, in hexadecimal.
        pair_id: String,
    },
}
