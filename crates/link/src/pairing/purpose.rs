//! The purposes for which pairing codes are opened.

use serde::{Deserialize, Serialize};

/// The purpose for which a code was opened. A code that is used for another purpose is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A second node joins a pair.
    Node,
    /// A pair enrols at a witness.
    Witness,
}
