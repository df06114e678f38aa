//! The daemon `dyad-core`: the bytes of a node and its right to run VMs.
//!
//! ```text
//!  vhost-user / imports ─► guests ─┐        ┌─► store ── pool (journal, extents, index)
//!  control socket ─► control_server ├─► state (mirror, document, permits)
//!  peer session ─► peer ───────────┘   ▲  │ └─► peer ── TLS session
//!                                      │  ▼
//!          quorum_thread (quorum, heartbeats, watchdog) ─► register, witness, cgroup_fence (cgroups)
//! ```
//!
//! It must never know HTTP, QMP or what a VM is made of: a VM is a name, its volumes and a cgroup. How a blank node becomes a
//! member is `dyad-provision`'s.
//!
//! **Invariants.** All state of the node is in [`state::CoreState`]; one thread, the core's state thread, changes it, event by
//! event from one queue of [`event::Event`]. VMs are
//! frozen and killed by [`cgroup_fence`] alone, told by [`quorum_thread`] alone, with no other process in the way; only an
//! erasure ([`decommission`]) kills them too. The watchdog of a member is fed by the quorum thread alone.

pub mod blank;
pub mod cgroup_fence;
pub mod clock;
pub mod control_server;
pub mod decommission;
pub mod documents;
pub mod event;
pub mod guests;
pub mod init;
pub mod links;
pub mod node;
pub mod options;
pub mod pairing;
pub mod panics;
pub mod peer;
pub mod peer_watchdog_cache;
pub mod peer_wire;
pub mod quorum_handle;
pub mod quorum_thread;
pub mod quorum_update;
pub mod register;
pub mod selftest;
pub mod state;
pub mod store;
pub mod timeline;
mod variant_name;
pub mod volume_request;
pub mod watchdog;
pub mod witness;
