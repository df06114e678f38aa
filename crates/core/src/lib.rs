//! The daemon `dyad-core`: the bytes of a node and its right to run VMs.
//!
//! ```text
//!  vhost-user / imports ─► guests ─┐        ┌─► store ── pool (journal, extents, index)
//!  control socket ─► control_server ├─► owner (mirror, document, permits)
//!  peer session ─► peer ───────────┘   ▲  │ └─► peer ── TLS session
//!                                      │  ▼
//!          conductor (quorum, heartbeats, watchdog) ─► register, witness, enforcer (cgroups)
//! ```
//!
//! It must never know HTTP, QMP or what a VM is made of: a VM is a name, its volumes and a cgroup.
//!
//! **Invariants.** All state of the node has one owner, [`owner::Owner`], fed by one queue. VMs are stopped by
//! [`enforcer`] alone, on the word of [`conductor`] alone, with no other process in the way. The watchdog is fed by the
//! conductor alone.

pub mod blank;
pub mod clock;
pub mod conductor;
pub mod contacts;
pub mod control_server;
pub mod disks;
pub mod documents;
pub mod enforcer;
pub mod erase;
pub mod event;
pub mod files;
pub mod guests;
pub mod identity;
pub mod init;
pub mod last_document;
pub mod links;
pub mod node;
pub mod options;
pub mod owner;
pub mod panics;
pub mod peer;
pub mod peer_proof;
pub mod register;
pub mod selftest;
pub mod setup;
pub mod store;
pub mod timeline;
pub mod watchdog;
pub mod witness;
