//! Requests and replies of the control socket.

use crate::{Refusal, RefusalCode, Status, TimelineEvent};
use dyad_desired::{Change, Document};
use dyad_types::DiskContent;
use serde::{Deserialize, Serialize};

/// Longest line of a request or reply, in bytes. The longest carries the document, which has at most 1 MiB before JSON
/// escapes.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// A request to the core.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// The current status: [`Reply::Status`].
    Status,
    /// [`Reply::Status`] now and at changes, until the client closes the connection. A change of permits or phase is sent
    /// at once, other changes after at most 200 ms, the newest status of that time. The connection takes no further
    /// request.
    Watch,
    /// The disks that could become pool disks: [`Reply::Disks`].
    Disks,
    /// First nodes heard on the peer links while their pairing code is open: [`Reply::Offers`]. Empty on a node of a pair.
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
    /// reads as zeros. If fewer bytes come it refuses with [`RefusalCode::ImportFailed`], and the volume keeps its old
    /// content. If the pair changes its lead in the last step it refuses with [`RefusalCode::ImportUnknown`]: the volume
    /// then holds either content. Refused while a VM uses the volume.
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
    /// Tells the core the names of the VMs that run now, for the timeline only: for its decisions the core reads the VMs'
    /// cgroup.
    Running {
        /// Names of the VMs whose guests execute on this node.
        vms: Vec<String>,
    },
    /// Prove that the watchdog resets this node: the core stops feeding it, and the node restarts. The last step of setup;
    /// operators repeat it if no reset came. Answered [`Reply::Done`] before the reset, or without a test if the watchdog
    /// is proven or absent. Refused while a VM runs on this node or is about to; no VM starts until the test has ended.
    ProveWatchdog,
    /// Erase this node or a disk.
    ///
    /// Without `disk`: this node leaves its pair, kills its VMs and becomes blank. Answered when this can no longer be
    /// stopped; the core then restarts and erases the disks. `confirm` is the node's name (`left`) if the other node is in
    /// sync and answers, or if this node was never admitted to its pair, so that no data is lost. Otherwise this copy may
    /// be the last one, and `confirm` is the names of pair and node (`office/left`). The refusal names the text.
    ///
    /// With `disk`, on a blank node only: erases the labels of a pair on that disk, named as [`DiskCandidate::path`] or by
    /// its last part. Answered when they are erased. `confirm` is the last part of its path (`vdb`).
    Erase {
        /// Path of the disk or its last part; `None` = erase this node.
        disk: Option<String>,
        /// The typed confirmation.
        confirm: String,
    },
    /// This node is about to shut down: hand over lead, tie vote and VMs to the other node. Answered when the hand-over is
    /// done; refused if the other node has not taken over after 10 s.
    #[serde(alias = "goodbye")]
    Leave,
}

/// Become the first node of a new pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatePair {
    /// Name of the new pair, as the operator chose it.
    pub pair: String,
    /// Name of this node, as the operator chose it.
    pub node: String,
    /// Disks to format and use, as [`DiskCandidate::path`].
    pub disks: Vec<String>,
    /// Interfaces that are peer links, e.g. `eth1`; at most four. Empty = every Ethernet interface of the node.
    pub links: Vec<String>,
    /// Argon2 hash (PHC string) of the administrator's password.
    pub admin_password_hash: String,
    /// The witness to enrol at before the disks are formatted; `None` = no enrolment during setup.
    #[serde(default)]
    pub witness: Option<Enrol>,
}

/// Enrol at a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// `host:port` or `host` of the witness; without a port it is 7403.
    pub address: String,
    /// The one-time code that the witness printed.
    pub code: String,
}

/// Become the second node of an existing pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Join {
    /// Name of this node, as the operator chose it.
    pub node: String,
    /// Disks to format and use, as [`DiskCandidate::path`].
    pub disks: Vec<String>,
    /// Interfaces that are peer links, e.g. `eth1`; at most four. Empty = every Ethernet interface of the node.
    pub links: Vec<String>,
    /// The code that the first node shows.
    pub code: String,
    /// The pair to join, as [`Offer::pair_id`]; `None` = only one pair is heard.
    #[serde(rename = "offer")]
    pub pair_id: Option<String>,
}

/// The core's answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The request was carried out; a change of the document is durable on every in-sync node.
    Done,
    Status(Box<Status>),
    /// Disks that could become pool disks.
    Disks {
        /// One entry for each disk that setup may use or refuse by its content.
        disks: Vec<DiskCandidate>,
    },
    /// First nodes whose announcements are heard.
    Offers {
        /// One entry for each pair heard in the last 5 s.
        offers: Vec<Offer>,
    },
    /// The open pairing code.
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
    /// Id of the pair, in hexadecimal.
    pub pair_id: String,
    /// Name that the operator gave the pair.
    pub pair: String,
    /// Name of the first node.
    pub node: String,
    /// Interface on which its announcements are heard, e.g. `eth1`.
    pub link: String,
}
