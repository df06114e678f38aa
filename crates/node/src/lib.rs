//! Everything a person sees of a node: API, wizard, sessions, the VMs' supervisor, the network and the blessing of a
//! boot, around one value that owns all state ([`control_plane`]).
//!
//! ```text
//! browser, CLI ──TLS──► http ──Service──► handle ──Event──► control_plane ──► dyad-core (control socket)
//!                                           ▲                 │       └─────► supervisor (QEMU)
//!                                           └──── snapshot ◄──┘
//! ```
//!
//! This crate must never know how bytes are mirrored or votes are cast; it takes both from the core's status. The process may
//! end at any time: VMs keep running and are adopted by the next one, and fencing never depends on it.
//!
//! **Invariants**
//! * Only [`control_plane`] changes state; all other modules read its newest [`snapshot`] or send it an event.
//! * A password is verified in a task of its own and never kept; of a session token only the hash is kept.
//! * A route is answered without a session only if the route table marks it as public: status and its events, setup and
//!   its offers, the erasing of a blank node's disk, login, and metrics.
//! * A disk is formatted only by a [`dyad_wizard::SetupPlan`], so only after the typed confirmation.
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
