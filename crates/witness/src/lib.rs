//! The witness: the third vote of many pairs, in one small daemon, and the client nodes ask it with.
//!
//! It keeps less than 1 KiB per pair: the keys of its nodes and one acceptor's record
//! ([`dyad_quorum::Record`]). It has no clock, no lease, no log and no heartbeat duty.
//!
//! * [`server`]: the daemon's network side; [`admin`]: its local side, for the command line.
//! * [`client`]: asking and enrolling, for nodes.
//! * [`install`]: becoming a service on any Linux with systemd.
//!
//! This crate must never know what a configuration means: it stores what
//! [`dyad_quorum::acceptor`] makes of a record, and answers what that says. It must never hold user
//! data.
//!
//! **Invariants**
//! * An answer leaves only after the record it depends on is committed and synced; when that fails
//!   the daemon ends without answering.
//! * Only a key enrolled for a pair moves that pair's record or keys.
//! * A store that is a copy of another, or is found behind what a node has seen of it, never votes
//!   with what it holds: it comes back as a new incarnation, which a configuration must admit first.

pub mod admin;
pub mod client;
pub mod install;
mod pairs;
pub mod protocol;
pub mod server;
mod store;
mod store_writer;

pub use store::StoreError;
