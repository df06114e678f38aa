//! Serves the blocks of a volume to clients, one folder per protocol.
//!
//! * `vhost_user/`: a `vhost-user-blk` device, for a virtual machine on this node. One [`Server`] serves one
//!   volume to one QEMU over a unix socket.
//!
//! What the protocols share stands beside the folders: the [`Backend`] trait that a volume implements, the locks
//! that keep changes of one block in order, and the limits of a request.
//!
//! This crate must not know what a volume is made of: no pool, no peer, no epoch, no lease. A backend that may not
//! serve now keeps its completions back; a daemon that may not serve starts no server.
//!
//! **Invariants**
//!
//! 1. Only the device's own thread reads or writes guest memory, and only for started rings. A completion that arrives
//!    after its ring was stopped changes nothing in the guest.
//! 2. The backend sees whole blocks (multiples of [`BLOCK_BYTES`]) inside the volume and nothing else.
//! 3. Two changes of the same block are never at the backend at the same time, so the
//!    read-modify-write of a partial block loses no neighbour.
//! 4. Each byte of a write is read from guest memory exactly once, into a private copy.
//! 5. Invalid content of rings or of QEMU's messages ends this connection at worst. All memory shared with QEMU is sealed against shrinking before it is mapped, so that no access
//!    to it can fault.
//! 6. A request is answered only after the backend answered. A lost answer is a pause, never an error.
//!
//! Sources: *vhost-user* is the protocol page of the QEMU manual ("Vhost-user Protocol", sections
//! "Communication", "Inflight I/O tracking", "Migration"); *virtio* is "Virtual I/O Device Version 1.2",
//! with sections 2.7 (split virtqueues) and 5.2 (block device). Comments name the section they follow.

mod backend;
mod error;
mod limits;
mod mailbox;
mod ranges;
mod reply;
mod vhost_user;

pub use backend::{Backend, Request};
pub use error::BackendError;
pub use limits::{BLOCK_BYTES, SECTOR};
pub use reply::{ReplyTo, RequestResult};
pub use vhost_user::{Config, Handle, Server, StartError, Status};
