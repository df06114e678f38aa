//! The purpose of a pairing code.

use serde::{Deserialize, Serialize};

/// The purpose for which a code was opened. A code is not valid for another purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A second node joins a pair.
    Node,
    /// A pair enrols at a witness.
    Witness,
}
