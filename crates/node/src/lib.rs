//! The management service of a node: API, setup, sessions, the supervision of VMs, the network, and the blessing of a boot.
//! One value owns all state ([`control_plane`]).
//!
//! ```text
//! browser, CLI ──TLS──► http ──Service──► handle ──Event──► control_plane ──► dyad-core (control socket)
//!                                           ▲                 │       └─────► supervisor (QEMU)
//!                                           └──── snapshot ◄──┘
//! ```
//!
//! This crate must never know how data is mirrored or votes are cast; it takes the results from the core's status. The process
//! may end at any time: VMs keep running and are adopted by the next process, and fencing does not depend on it.
//!
//! **Invariants**
//! * Only [`control_plane`] changes the state; all other modules read its newest [`snapshot`] or send it an event.
//! * The password of a login is compared in a separate task and not kept; of a session token only the hash is kept.
//! * A route is answered without a session only if the route table marks it as public: status and its events, setup and
//!   its offers, the erasing of a blank node's disk, login, and metrics.
//! * A disk is formatted only for a [`dyad_wizard::SetupPlan`], so only after the confirmation was typed or written in a seed file.
//! * A VM is started only while the core permits it.

pub mod bless;
pub mod certificate;
pub mod control_plane;
mod convert;
mod core_link;
mod event;
pub mod handle;
pub mod host_inventory;
pub mod http;
mod import;
pub mod network;
pub mod options;
mod password;
pub mod ports;
pub mod seed;
mod serial;
pub mod server;
mod setup;
pub mod snapshot;
pub mod supervise;
pub mod vms;

pub use handle::NodeHandle;
pub use options::Options;
