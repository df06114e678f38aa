//! The wizard and the status screen for serial lines and local screens.
//!
//! The wizard is a conversation of plain lines, so that it works on any terminal and at 9600 baud; the status screen
//! sends differences only. Both use ASCII and 80 by 24 characters unless the terminal says that it has more.
//!
//! This crate must never know how setup or status come about: it asks `dyad-node` and `dyad-core` on their local sockets
//! and shows the same questions, refusals and sentences as the pages.
//!
//! **Invariant.** A secret is never echoed. Nothing is set up before the summary was confirmed.

pub mod client;
pub mod erase;
pub mod line;
pub mod screen;
pub mod status;
pub mod terminal;
pub mod wizard;
