//! The wizard and the status screen for serial lines and local screens.
//!
//! The wizard prints plain lines, so that it works on any terminal and at 9600 baud. The status screen sends only the
//! characters that changed. Both use ASCII and 80 by 24 characters unless the terminal reports a larger size.
//!
//! This crate must never know how setup is done or how a status is computed: it asks `dyad-node` and `dyad-core` on
//! their local sockets and shows the same questions, refusals and sentences as the web pages.
//!
//! **Invariant.** A secret is never echoed. Nothing is set up before the summary is confirmed.

pub mod client;
pub mod erase;
pub mod line;
pub mod screen;
pub mod status;
pub mod terminal;
pub mod wizard;
