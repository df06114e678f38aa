//! Requests and replies of the socket.

use crate::{Refusal, RefusalCode, Status, TimelineEvent};
use dyad_desired::{Change, Document};
use dyad_types::DiskContent;
use serde::{Deserialize, Serialize};

/// Limit of a request or reply line, in bytes. The largest one carries the document, of 1 MiB before JSON escapes.
pub const MAX_LINE: usize = 4 << 20;

/// A request to the core.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// The current status: [`Reply::Status`].
    Status,
    /// [`Reply::Status`] now and at each change, at most five a second, until the client closes the connection.
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
    /// Replace the content of a volume. The core answers [`Reply::Done`], then reads exactly `bytes` raw bytes, then
    /// answers again once they are durable on every in-sync node and have replaced the old content; the rest of the volume
    /// reads as zeros. If fewer bytes come it refuses with [`RefusalCode::ImportFailed`], and the volume keeps its old content.
    /// If the pair changes its lead in the last step it refuses with [`RefusalCode::ImportUnknown`]: the volume then holds
    /// either content. Refused while a VM uses the volume.
    Import {
        volume: String,
        /// Length of what follows, in bytes; at most the size of the volume.
        bytes: u64,
    },
    /// Events, oldest first, from the event number `since` on: [`Reply::Timeline`].
    Timeline {
        /// First event number wanted; 0 = everything still remembered.
        since: u64,
    },
    /// Tells the core the names of the VMs that run now, for the timeline. For its decisions the core reads the cgroups.
    Running {
        /// Names of the VMs whose guests execute on this node.
        vms: Vec<String>,
    },
    /// Prove that the watchdog resets this node: the core stops feeding it, and the node restarts. The last step of setup;
    /// people repeat it if the reset did not come. Answered [`Reply::Done`] just before the reset, or at once if the watchdog
    /// is proven or absent. Refused while a VM runs on this node; no VM starts until the proof has ended.
    ProveWatchdog,
    /// Erase this node or a disk. Answered when the erasure can no longer be stopped; it ends after a restart of the core.
    ///
    /// Without `disk`: this node leaves its pair, stops its VMs and becomes blank. `confirm` is the node's name
    /// (`left`) if the other node is in sync and answers, so that no data is lost; otherwise this copy may be the
    /// last one, and `confirm` is both names (`office/left`). The refusal names the text.
    ///
    /// With `disk`, on a blank node: erases the labels of a pair on that disk, named as [`DiskCandidate::path`] or by its
    /// last part. `confirm` is the last part of its path (`vdb`).
    Erase {
        /// The disk; `None` = this node.
        disk: Option<String>,
        /// The typed confirmation.
        confirm: String,
    },
    /// This node is about to shut down: hand over lead, tie vote and VMs to the other node. Answered when the hand-over is
    /// done, or when it cannot be made.
    #[serde(alias = "goodbye")]
    Leave,
}

/// Become the first node of a new pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatePair {
    pub pair: String,
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
    /// The request was carried out; a change of the document is durable on every in-sync node.
    Done,
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
        code: String,
        /// Seconds until it expires.
        expires_s: u64,
    },
    Document {
        /// The newest document known here.
        document: Box<Document>,
    },
    Timeline {
        /// The events asked for, oldest first.
        events: Vec<TimelineEvent>,
    },
    /// The request was refused.
    Refused(Refusal),
}

impl Reply {
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
    /// Its present content.
    pub content: DiskContent,
}

/// A first node that waits for its second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Id of the pair, in hex.
    pub pair_id: String,
    pub pair: String,
    /// Name of the first node.
    pub node: String,
    /// The link on which it was heard.
    pub link: String,
}
