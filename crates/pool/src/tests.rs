//! Whole-store tests: against a naive map, across crashes, and with damage.

mod basics;
mod crash;
mod damage;
mod disks;
mod faults;
mod formats;
mod full;
pub(crate) mod model;
mod oracle;
pub(crate) mod rig;

/// Mutants: deliberate bugs that the crash tests must find.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted {
    /// Extents are not synced before the index names them.
    pub skipped_sync: bool,
    /// Reads do not verify checksums.
    pub unchecked_checksum: bool,
}
