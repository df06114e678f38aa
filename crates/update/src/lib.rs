//! The partitions of the system disk, and its slots: finding the slot that booted, blessing it, writing a new one.
//!
//! A slot is one file on the system partition: a unified kernel image with the whole system. The boot loader counts the
//! tries in the file's name (`dyad-0.1.0+2-1.efi`: two tries left, one used) and starts the newest slot that is
//! blessed or has tries left. To bless a slot is to remove the counter from its name, which marks it as good.
//!
//! This crate must never know what makes a boot good (its caller decides), nor the pair, the network or the format of
//! an update bundle.
//!
//! **Invariants.** The running slot, as the boot loader reports it, is never deleted or overwritten. A slot gets its
//! final name only when all its bytes are durable. The partition is writable only during a change.

mod efi;
mod error;
mod esp;
pub mod layout;
mod name;
mod node;

pub use efi::LoaderVariables;
pub use error::UpdateError;
pub use esp::{Slot, SystemPartition};
pub use name::{EntryName, INITIAL_TRIES, NameError, TryCounter};
pub use node::{Blessing, NodeSlots};
