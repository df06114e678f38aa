//! The witness: the third vote for many pairs in one small daemon, and the client with which nodes send requests to it.
//!
//! The daemon stores less than 1 KiB per pair: the keys of the nodes and one acceptor record ([`dyad_quorum::AcceptorRecord`]).
//! It needs no clock, no lease and no log, and sends no heartbeats.
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
//! * Only a key that is enrolled for a pair can change that pair's record or keys.
//! * A store that is a copy of another, or that is older than what a node has seen of it, never votes with its stored
//!   records: it gets a new incarnation, which a configuration must admit first.

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
