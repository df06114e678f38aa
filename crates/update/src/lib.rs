//! The system disk and the systems on it: which slot booted, when it counts as good, how a new one is written.
//!
//! A slot is one file on the system partition, a unified kernel image that holds the whole system. The boot loader
//! keeps the number of tries in the file's name (`dyad-0.1.0+2-1.efi`: two tries left, one used up) and turns to the
//! next older slot once none is left. Blessing takes the counter out of the name: that slot is good from then on.
//!
//! This crate must never know what makes a boot good (its caller decides), nor anything of the pair, the network or
//! the format of an update bundle.
//!
//! **Invariants.** The slot that runs is never deleted or overwritten. A slot appears under its final name only when
//! all its bytes are on the disk. The partition is writable only for the length of one change.

mod efi;
mod error;
mod esp;
pub mod layout;
mod name;
mod node;

pub use efi::LoaderVariables;
pub use error::UpdateError;
pub use esp::{Slot, SystemPartition};
pub use name::{Counter, EntryName, NameError, TRIES};
pub use node::{Blessing, Node};
