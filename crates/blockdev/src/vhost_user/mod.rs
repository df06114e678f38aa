//! A `vhost-user-blk` device server.
//!
//! The server speaks the vhost-user protocol, reads the guest's virtqueues, turns requests of 512-byte sectors into
//! requests of whole 4 KiB blocks, and passes these to a [`Backend`](crate::Backend). QEMU connects to the server, and
//! connects again after the server was restarted. The server then finds the requests that were in flight in memory
//! shared with QEMU and submits them again, so a restart of the serving process is a short pause for the guest.
//!
//! | file | holds |
//! | --- | --- |
//! | `server` | start, status and stop of a device |
//! | `worker` | the device's thread: waits for QEMU, for kicks and for completions |
//! | `handler` | vhost-user messages, applied to the device |
//! | `device` | negotiated features, rings, engine |
//! | `vring`, `request` | one virtqueue; from a chain of descriptors to a request |
//! | `engine`, `job` | requests cut into pieces and run against the backend |
//! | `memory`, `dirty_log`, `inflight`, `shared_memory` | memory shared with QEMU |

mod config;
mod config_space;
mod device;
mod dirty_log;
mod engine;
mod handler;
mod inflight;
mod job;
mod memory;
mod request;
mod server;
mod shared;
mod shared_memory;
mod vring;
mod worker;

pub use config::Config;
pub use server::{Server, ServerHandle, StartError, Status};
