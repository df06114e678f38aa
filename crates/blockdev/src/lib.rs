//! Serves the blocks of a volume to clients. Each protocol has a folder.
//!
//! * `vhost_user/`: a `vhost-user-blk` device, for a virtual machine on this node. One [`Server`] serves one
//!   volume to one QEMU over a unix socket.
//!
//! Code for all protocols is beside the folders: the [`Backend`] trait that a volume implements, the locks that let
//! changes of one block run one after the other, and the limits of a request.
//!
//! This crate must not know what a volume is made of: no pool, no peer, no epoch, no lease. A backend that has no right
//! to serve at the moment does not complete its requests until it has; a daemon that has no right to serve starts no
//! server.
//!
//! **Invariants**
//!
//! 1. Only the device's own thread reads or writes guest memory, and only for started rings. A completion that arrives
//!    after its ring was stopped changes nothing in the guest.
//! 2. Each request at the backend is a flush, or covers whole blocks (multiples of [`BLOCK_BYTES`]) inside the volume.
//! 3. Two changes of the same block are never at the backend at the same time, so the read-modify-write of a part of a
//!    block loses no change of another part.
//! 4. Each byte of a write is read from guest memory exactly once, into a private copy.
//! 5. Invalid content of rings or of QEMU's messages ends the connection and does no other harm. Memory shared with
//!    QEMU is mapped only if it is sealed against shrinking, so that no access to it can fault.
//! 6. A request that needs the backend is answered only after the backend has answered. As long as it does not answer,
//!    the guest waits; it never sees an error because of that.
//!
//! Sources: *vhost-user* is the protocol page of the QEMU manual ("Vhost-user Protocol", sections
//! "Communication", "Inflight I/O tracking", "Migration"); *virtio* is "Virtual I/O Device Version 1.2",
//! with sections 2.7 (split virtqueues) and 5.2 (block device). Comments name the section that the code follows.

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
pub use vhost_user::{Config, Server, ServerHandle, StartError, Status};
