/// Number of the newest snapshot of a volume at the time when a block was written. Always 0: volumes have no snapshots
/// yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct Birth(pub u64);
