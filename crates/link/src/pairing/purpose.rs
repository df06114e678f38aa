//! The purpose of a pairing code.

use serde::{Deserialize, Serialize};

/// What a code was opened for. A code of one purpose is worth nothing for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A second node joins a pair.
    Node,
    /// A pair enrols at a witness.
    Witness,
}
