//! The system disk and its slots: which slot booted, when it counts as good, how a new one is written.
//!
//! A slot is one file on the system partition: a unified kernel image with the whole system. The boot loader counts the
//! tries in the file's name (`dyad-0.1.0+2-1.efi`: two tries left, one used) and boots the next older slot when none is
//! left. Blessing a slot removes the counter from its name and so marks it as good.
//!
//! This crate must never know what makes a boot good (its caller decides), nor the pair, the network or the format of
//! an update bundle.
//!
//! **Invariants.** The running slot is never deleted or overwritten. A slot gets its final name only when all its bytes
//! are on the disk. The partition is writable only during one change.

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
