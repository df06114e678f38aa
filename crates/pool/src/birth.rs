/// Number of the newest snapshot at the time of a write; 0 as there are no snapshots yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct Birth(pub u64);
