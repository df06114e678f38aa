//! The wizard and the status screen for serial lines and local screens.
//!
//! The wizard prints plain lines, so that it works on any terminal and at 9600 baud. The status screen sends only the
//! characters that changed; it uses ASCII and the size that the terminal reports, from 80 by 24 to 200 by 60 characters.
//!
//! This crate must never know how setup is done or how a status is computed: it asks `dyad-node` and `dyad-core` on
//! their local sockets and shows the same questions, refusals and sentences as the web pages.
//!
//! **Invariants.** The characters of a secret are shown as stars. Setup does not begin before the summary is confirmed.

pub mod client;
pub mod erase;
pub mod line;
pub mod screen;
pub mod status;
pub mod terminal;
pub mod wizard;
