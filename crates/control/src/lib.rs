//! The local socket of `dyad-core`: the requests of `dyad-node`, `dyad-console` and tests, and their replies.
//!
//! One connection carries requests one after the other; each request is one JSON line and is answered by one
//! JSON line ([`Reply`]). Two requests continue after their reply: [`Request::Watch`] is followed by a [`Status`] line
//! at each change, [`Request::Import`] by the raw bytes of the volume from the client and one last reply.
//!
//! This crate must never know how the core does its work (no pool, mirror or link types) nor anything of HTTP.
//!
//! **Invariants.** A refused request has changed nothing, unless [`RefusalCode::change_certainly_not_made`] is `false` for its
//! code. A [`Status`] is the state of the core at one time: its parts were read together. A value that is not known is
//! `None`, never a reassuring default.

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
pub use protocol::{CreatePair, DiskCandidate, Enrol, Join, MAX_LINE, Offer, Reply, Request};
pub use refusal::{Refusal, RefusalCode, chain};
pub use server::{RequestError, read_request, write_reply};
pub use status::*;
pub use timeline::{TimelineEvent, TimelineKind};

/// Path of the core's socket on a real node.
pub const DEFAULT_SOCKET: &str = "/run/dyad/core.sock";
