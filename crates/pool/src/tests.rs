//! Tests of whole pools on simulated disks: compared with a model, across losses of power, with damage and with faults.

mod basics;
mod crash;
mod damage;
mod disks;
mod faults;
pub(crate) mod fixture;
mod formats;
mod full;
mod lost;
pub(crate) mod model;
mod oracle;

/// Mutants: planted bugs that the tests must find. All are off by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted {
    /// A checkpoint does not sync the extents before it commits the index.
    pub skipped_sync: bool,
    /// Reads do not verify checksums.
    pub unchecked_checksum: bool,
}
