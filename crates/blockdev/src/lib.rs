//! The face of a volume towards a guest: a `vhost-user-blk` device server.
//!
//! One [`Server`] serves one volume to one QEMU over a unix socket. It speaks the vhost-user protocol,
//! walks the guest's virtqueues, turns requests of 512-byte sectors into requests of whole 4 KiB blocks
//! and hands those to a [`Backend`]. QEMU connects to us and connects again whenever we were away;
//! requests that were in flight are found in memory shared with QEMU and are submitted again, so the
//! death of the serving process is a short pause for the guest.
//!
//! This crate must never know what a volume is made of: no pool, no peer, no epoch, no lease. A backend
//! that may not serve now keeps its completions back; a daemon that may not serve starts no server.
//!
//! **Invariants**
//!
//! 1. Guest memory is touched by the device's own thread only, and only for rings that are started.
//!    A completion that arrives after its ring was stopped changes nothing in the guest.
//! 2. The backend sees whole blocks (multiples of [`BLOCK`]) inside the volume and nothing else.
//! 3. Two changes of the same block are never at the backend at the same time, so the
//!    read-modify-write of a partial block loses no neighbour.
//! 4. Each byte of a write is read from guest memory exactly once, into a private copy.
//! 5. Whatever a guest writes into its rings or QEMU into its messages ends this connection at worst.
//!    All memory shared with QEMU is sealed against shrinking before it is mapped, so that no access
//!    to it can fault.
//! 6. A request is answered only after the backend answered. A lost answer is a pause, never an error.
//!
//! Sources: *vhost-user* is the protocol page of the QEMU manual ("Vhost-user Protocol", sections
//! "Communication", "Inflight I/O tracking", "Migration"); *virtio* is "Virtual I/O Device Version 1.2",
//! with sections 2.7 (split virtqueues) and 5.2 (block device). Comments name the section they follow.

#![warn(missing_docs)]

mod backend;
mod config_space;
mod device;
mod dirty_log;
mod engine;
mod handler;
mod inflight;
mod job;
mod mailbox;
mod memory;
mod ranges;
mod request;
mod server;
mod vring;
mod worker;

pub use backend::{BLOCK, Backend, BackendError, Done, Request};
pub use server::{Config, Handle, Server, StartError, Status};

/// Unit of addresses in virtio-blk requests, in bytes (virtio 5.2.4, `capacity`).
pub const SECTOR: u64 = 512;
