use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A point in time on one node: nanoseconds since that node booted (CLOCK_BOOTTIME). It is never compared with a time
/// of the other node.
///
/// A duration is a plain `u64`, in nanoseconds: a time plus a duration is a time, and the difference of two times is a
/// duration.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The moment at which the node booted. Code in which a time may be missing uses it for "never".
    pub const ZERO: BootTime = BootTime(0);

    /// The duration from `earlier` to this time in nanoseconds; 0 if `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for BootTime {
    type Output = BootTime;

    fn add(self, duration: u64) -> BootTime {
        BootTime(self.0 + duration)
    }
}

impl Sub<u64> for BootTime {
    type Output = BootTime;

    fn sub(self, duration: u64) -> BootTime {
        BootTime(self.0 - duration)
    }
}

impl Sub for BootTime {
    type Output = u64;

    fn sub(self, earlier: BootTime) -> u64 {
        self.0 - earlier.0
    }
}

/// Shows the plain number, as logs and reports do.
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
