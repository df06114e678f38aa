//! The daemon `dyad-core`: it stores and replicates the volumes of a node, and decides whether its VMs may run.
//!
//! ```text
//!  vhost-user / imports ─► guests ─┐        ┌─► store ── pool (journal, extents, index)
//!  control socket ─► control_server ├─► state (mirror, document, permits)
//!  peer session ─► peer ───────────┘   ▲  │ └─► peer ── TLS session
//!                                      │  ▼
//!          quorum_thread (quorum, heartbeats, watchdog) ─► register, witness, cgroup_fence (cgroups)
//! ```
//!
//! It must never know HTTP, QMP or the hardware of a VM: a VM is a name, its volumes and a cgroup. The steps by which a
//! blank node becomes a member are in `dyad-provision`.
//!
//! **Invariants.** The state of a member is in [`state::CoreState`], except the quorum machine, which [`quorum_thread`] owns, and
//! the pool, which [`store`] owns. One thread, the core's state thread, changes it, event by event from one queue of
//! [`event::Event`]. This daemon freezes and kills VMs through [`cgroup_fence`] alone, at the command of [`quorum_thread`]
//! alone, without the help of another process; only a decommission ([`decommission`]) kills them too. The watchdog of a
//! running member is fed by the quorum thread alone.

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
mod repetition;
pub mod selftest;
pub mod state;
pub mod store;
pub mod timeline;
pub mod turn;
mod variant_name;
pub mod volume_request;
pub mod watchdog;
pub mod witness;
