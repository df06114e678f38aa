//! The local socket of `dyad-core`: the requests of `dyad-node`, `dyad-console` and tests, and their replies.
//!
//! One connection carries requests one after the other; each request is one JSON line and is answered by one JSON line
//! ([`Reply`]). Two requests continue after their reply: [`Request::Watch`] is followed by further [`Reply::Status`] lines
//! until the client closes the connection, [`Request::Import`] by the raw bytes of the image from the client and one last
//! reply.
//!
//! This crate must never know how the core does its work (no types of pool, mirror or link) nor an HTTP library. It only
//! says which HTTP status a refusal has.
//!
//! **Invariants.** A refused request has changed nothing, unless [`RefusalCode::change_certainly_not_made`] is `false` for its
//! code. A [`Status`] is built from the state of the core in one step, so its parts belong together; only [`Status::pool`]
//! may be older, by about 0.5 s. A value that is not known is `None`, never a default that looks healthy.

mod alarm;
mod client;
mod codes;
mod protocol;
mod refusal;
mod server;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
mod timeline;

pub use alarm::{Alarm, AlarmCode};
pub use client::{CORE_AWAY, Client, ClientError, Watch};
pub use dyad_types::DiskContent;
pub use protocol::{CreatePair, DiskCandidate, Enrol, Join, MAX_LINE_BYTES, Offer, Reply, Request};
pub use refusal::{Refusal, RefusalCode, chain};
pub use server::{RequestError, read_request, write_reply};
pub use status::*;
pub use timeline::{TimelineEvent, TimelineKind};

/// Path of the core's socket on a real node.
pub const DEFAULT_SOCKET: &str = "/run/dyad/core.sock";
