//! The messages of the two nodes while the second one joins, inside the pairing channel.
//!
//! ```text
//! second                       first
//!   Hello ───────────────────────▶
//!   ◀─────────────────── Admission
//!   false, false, … ─────────────▶   the second node still formats its disks
//!   true ────────────────────────▶   the second node is ready
//!   ◀─────────────── true or false   whether the first node has stored the second one as its peer
//! ```

use crate::identity::Welcome;
use serde::{Deserialize, Serialize};

/// The first message of the second node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the second node.
    pub node: String,
    /// Incarnation of the second node's store.
    pub incarnation: u64,
}

/// The first node's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Admission {
    /// The second node is admitted once it is ready.
    Welcome(Box<Welcome>),
    /// The second node is refused, for the reason in this sentence.
    Refused(String),
}
