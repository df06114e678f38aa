//! Everything a person sees of a node: API, wizard, sessions, the VMs' supervisor, the network and the blessing of a
//! boot, wired around one owner of state.
//!
//! ```text
//! browser, CLI ──TLS──► http ──Service──► handle ──asks──► owner ──► dyad-core (control socket)
//!                                                            │ └───► supervisor (QEMU)
//!                                         snapshot ◄─────────┘
//! ```
//!
//! This crate must never know how bytes are mirrored or votes are cast; the core says what is so. It may die at any
//! moment: VMs go on and are found again, and nothing here fences anything.
//!
//! **Invariants**
//! * [`owner`] is the only place that changes state; everybody else reads its newest [`snapshot`] or asks it.
//! * A password is verified off the loop and never kept; of a session token only its hash is kept.
//! * Nothing but status, setup, offers, login and metrics is answered without a session.
//! * A disk is formatted only through a [`dyad_wizard::Plan`], so only after the typed confirmation.
//! * A VM is started only while the core permits it.

pub mod bless;
pub mod certificate;
pub mod control_plane;
mod convert;
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
