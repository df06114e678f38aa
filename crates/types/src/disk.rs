use serde::{Deserialize, Serialize};

/// What is on a disk before setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskContent {
    /// All zeros where tables and labels would be.
    Blank,
    /// Data that is not of a pool, described in a few words. It needs the typed confirmation.
    Foreign(String),
    /// A pool disk of a pair.
    Pool {
        /// As the label of the disk says.
        pair: String,
        /// As the label of the disk says.
        node: String,
        /// Id of the pair, in hexadecimal.
        pair_id: String,
    },
}
