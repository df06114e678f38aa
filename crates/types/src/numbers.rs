//! Numbers that name things, each with a type of its own so that the compiler tells them apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a volume in the pool. 0 is the document itself; user volumes count from 1, and no number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct VolumeId(pub u64);

impl VolumeId {
    /// The volume that holds the document.
    pub const DOCUMENT: VolumeId = VolumeId(0);
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number! {
    /// Identifies one connection to the peer; given by the peer link, only compared for equality.
    pub struct Session;
}

number! {
    /// Number of a membership of the pair; grows by one at each change. 0: no membership is known.
    pub struct Epoch;
}

number! {
    /// Number of a write within its volume; grows across epochs and is never used twice. 0: no write.
    pub struct Seq;
}

/// The position of a write in the history of its volume. Ordered by epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Membership that the write was made under.
    pub epoch: Epoch,
    /// Number within the volume.
    pub seq: Seq,
}
