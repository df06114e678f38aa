//! The witness: a small daemon that has the third vote of many pairs, and the client with which nodes send requests to
//! it.
//!
//! The daemon stores less than 1 KiB per pair: the pair's name, the keys of its nodes and one acceptor record
//! ([`dyad_quorum::AcceptorRecord`]): what the witness has promised and accepted as the pair's third acceptor. It needs
//! no wall clock, no lease and no log, and sends no heartbeats.
//!
//! * [`server`]: the daemon's network side; [`admin`]: its socket for the command line.
//! * [`client`]: requests and enrolment, for nodes.
//! * [`install`]: installation as a service on any Linux with systemd.
//!
//! This crate must never know what a configuration means: it stores the record that [`dyad_quorum::acceptor`] returns
//! and sends the answer that it returns. It must never store user data.
//!
//! **Invariants**
//! * An answer is sent only after the record it depends on is committed and synced. If that fails, the daemon ends
//!   without answering.
//! * Over the network only a node whose key is enrolled for a pair can change that pair's record or keys.
//! * A store that is a copy of another never votes with its stored records, and neither does a pair's record that is
//!   older than what a node of the pair has seen of it: the record gets a new incarnation, which a configuration must
//!   admit first. A copy is recognised on file systems that record the creation time of files.

mod accept;
pub mod admin;
pub mod client;
pub mod install;
mod pairs;
pub mod protocol;
pub mod server;
mod store;
mod store_writer;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use store::StoreError;
