use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds of CLOCK_BOOTTIME on the node that holds the value. It is never compared with a time of
/// the other node.
///
/// A length of time is a plain number of nanoseconds: a time plus a length is a time, and the difference of two times is
/// a length.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The boot of the node. Where a time may be missing, it means "never".
    pub const ZERO: BootTime = BootTime(0);

    /// The length from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for BootTime {
    type Output = BootTime;

    fn add(self, length: u64) -> BootTime {
        BootTime(self.0 + length)
    }
}

impl Sub<u64> for BootTime {
    type Output = BootTime;

    fn sub(self, length: u64) -> BootTime {
        BootTime(self.0 - length)
    }
}

impl Sub for BootTime {
    type Output = u64;

    fn sub(self, earlier: BootTime) -> u64 {
        self.0 - earlier.0
    }
}

/// The plain number: logs and reports show it so.
impl fmt::Debug for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
