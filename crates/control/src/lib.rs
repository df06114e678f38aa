//! The local socket of `dyad-core`: what `dyad-node`, `dyad-console` and tests may ask it.
//!
//! One connection carries requests one after the other; each request is one JSON line and is answered by one
//! JSON line ([`Reply`]). Two requests go on after their reply: [`Request::Watch`] is followed by a [`Status`] line
//! at every change, [`Request::Import`] by the raw bytes of the volume from the client and one last reply.
//!
//! This crate must never know how the core does its work (no pool, mirror or link types) nor anything of HTTP.
//!
//! **Invariants.** A refused request has changed nothing. A [`Status`] is one consistent moment of the core: its
//! parts were read together. Whatever is not known is `None`, never a reassuring default.

mod alarm;
mod client;
mod codes;
mod refusal;
mod server;
mod status;
#[cfg(feature = "testing")]
pub mod testing;

pub use alarm::{Alarm, AlarmCode};
pub use client::{CORE_AWAY, Client, ClientError, Watch};
pub use dyad_types::DiskContent;
pub use refusal::{Refusal, RefusalCode};
pub use server::{read_request, write_line};
pub use status::*;

use dyad_desired::{Change, Document};
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

/// Where the core listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dyad/core.sock";

/// Longest accepted request or reply line, in bytes. The document is the largest thing that travels: 1 MiB.
pub const MAX_LINE: usize = 4 << 20;

/// One question to the core.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// The state of this moment: [`Reply::Status`].
    Status,
    /// [`Reply::Status`] now and again at every change, at most five a second, until the client hangs up.
    Watch,
    /// The disks that could become pool disks: [`Reply::Disks`].
    Disks,
    /// First nodes heard on the peer links while their pairing code is open: [`Reply::Offers`].
    Offers,
    /// Become the first node of a new pair. Formats the named disks.
    #[serde(alias = "found")]
    CreatePair(CreatePair),
    /// Become the second node of an existing pair. Formats the named disks.
    Join(Join),
    /// Open (or renew) the one-time code with which the second node joins: [`Reply::Code`].
    OpenPairingCode,
    /// Enrol at a witness and give it the tie vote.
    Enrol(Enrol),
    /// The replicated document: [`Reply::Document`].
    Document,
    /// Change the document. Answered when the change is durable on every in-sync node.
    Change {
        /// The change; applied by the lead of the pair to the newest document.
        change: Change,
    },
    /// Replace what a volume holds. The core answers [`Reply::Done`], then reads exactly `bytes` raw bytes, then
    /// answers again once they are durable on every in-sync node and all that the volume holds; the rest of it reads as
    /// zeros. If they do not all come it refuses with [`RefusalCode::ImportFailed`], and the volume holds what it held before.
    /// If the pair changes its lead in the very last step it refuses with [`RefusalCode::ImportUnknown`]: either may be true. Refused
    /// while a VM uses the volume.
    Import {
        /// Name of the volume.
        volume: String,
        /// Length of what follows, in bytes; at most the size of the volume.
        bytes: u64,
    },
    /// What happened, oldest first, from `since` (an event number) on: [`Reply::Timeline`].
    Timeline {
        /// First event number wanted; 0 = everything still remembered.
        since: u64,
    },
    /// Tell the core which of the VMs run in this moment, by name, for the timeline. For its decisions the core asks the
    /// kernel.
    Running {
        /// Names of the VMs whose guests execute on this node.
        vms: Vec<String>,
    },
    /// Prove that the watchdog resets this node: it is no longer fed, and the node restarts. The last step of setup,
    /// and asked again by people when it did not work then. Answered [`Reply::Done`] just before the reset, or at once
    /// if it was proven before or there is none. Refused while a VM runs here; none starts until it is over.
    ProveWatchdog,
    /// Start over. Answered when there is no way back; what is left is erased after the core has started again.
    ///
    /// Without `disk`: this node leaves its pair, stops its VMs and becomes blank. `confirm` is the node's name
    /// (`left`) if the other node is in sync and answers, so that nothing is lost; otherwise the copy here may be the
    /// last one and both names must be typed (`office/left`). A refusal says which.
    ///
    /// With `disk`, on a blank node: that disk, named as [`DiskCandidate::path`] or by its last part, gets rid of the
    /// labels of a pair. `confirm` is the last part of its path (`vdb`).
    Erase {
        /// The disk; `None` = this node.
        disk: Option<String>,
        /// The typed confirmation.
        confirm: String,
    },
    /// This node is about to shut down: hand over what can be handed over. Answered when done.
    #[serde(alias = "goodbye")]
    Leave,
}

/// Become the first node of a new pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatePair {
    /// Name of the pair.
    pub pair: String,
    /// Name of this node.
    pub node: String,
    /// Disks to format and use, as [`DiskCandidate::path`].
    pub disks: Vec<String>,
    /// Interfaces that are peer links, e.g. `eth1`; at most four. Empty = every interface of the node.
    pub links: Vec<String>,
    /// Argon2 hash (PHC string) of the administrator's password.
    pub admin_password_hash: String,
    /// The witness to enrol at before anything is formatted; `None` = later.
    #[serde(default)]
    pub witness: Option<Enrol>,
}

/// Enrol at a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// `host:port` of the witness; without a port it is the usual one.
    pub address: String,
    /// The one-time code that the witness printed.
    pub code: String,
}

/// Become the second node of an existing pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Join {
    /// Name of this node.
    pub node: String,
    /// Disks to format and use, as [`DiskCandidate::path`].
    pub disks: Vec<String>,
    /// Interfaces that are peer links, e.g. `eth1`; at most four. Empty = every interface of the node.
    pub links: Vec<String>,
    /// The code that the first node shows.
    pub code: String,
    /// Which offer to take, as [`Offer::pair_id`], if several pairs are heard.
    pub offer: Option<String>,
}

/// The core's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It is done, and durable where durability was asked for.
    Done,
    /// The state.
    Status(Box<Status>),
    /// Disks that could become pool disks.
    Disks {
        /// One entry for each disk found.
        disks: Vec<DiskCandidate>,
    },
    /// First nodes heard.
    Offers {
        /// One entry for each pair heard in the last ten seconds.
        offers: Vec<Offer>,
    },
    /// A one-time code.
    Code {
        /// The digits.
        code: String,
        /// Seconds until it expires.
        expires_s: u64,
    },
    /// The document.
    Document {
        /// The newest document known here.
        document: Box<Document>,
    },
    /// Events.
    Timeline {
        /// Oldest first.
        events: Vec<TimelineEvent>,
    },
    /// Nothing was changed, and why.
    Refused(Refusal),
}

impl Reply {
    /// A refusal.
    pub fn refused(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Reply::Refused(Refusal::new(code, sentence))
    }
}

impl From<Result<(), Refusal>> for Reply {
    fn from(result: Result<(), Refusal>) -> Self {
        result.map_or_else(Reply::Refused, |()| Reply::Done)
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Reply::Refused(refusal)
    }
}

/// A disk that could become a pool disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCandidate {
    /// Stable path, e.g. `/dev/disk/by-id/…` or `/dev/vdb`.
    pub path: String,
    /// Model as the kernel knows it; may be empty.
    pub model: String,
    /// Serial number; may be empty.
    pub serial: String,
    /// Size in bytes.
    pub bytes: u64,
    /// What is on it now.
    pub content: DiskContent,
}

/// A first node that waits for its second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Id of the pair, in hex.
    pub pair_id: String,
    /// Name of the pair.
    pub pair: String,
    /// Name of the first node.
    pub node: String,
    /// Over which link it was heard.
    pub link: String,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// Number, grows by one.
    pub number: u64,
    /// Milliseconds of CLOCK_BOOTTIME on this node.
    pub boot_ms: u64,
    /// Wall clock, milliseconds since 1970; for people only.
    pub wall_ms: u64,
    /// Which node wrote it.
    pub node: Option<NodeId>,
    /// A short stable word, e.g. `peer-silent`, `epoch`, `fence-wait`, `fence-over`, `vm-start`, `in-sync`.
    pub kind: String,
    /// One sentence for people.
    pub text: String,
}
