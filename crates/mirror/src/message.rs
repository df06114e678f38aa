//! Messages between two mirrors. They are carried in order over one session; the crate `link` defines their encoding.

use crate::types::{VolumeChange, VolumeInfo};
use bytes::Bytes;
use dyad_types::{BlockIndex, Epoch, ExtentImage, ExtentIndex, Seq, Stamp, VolumeId, number};
use serde::{Deserialize, Serialize};

/// Limit of the ranges in one [`Body::Touched`]: keeps a frame below 256 KiB.
pub const MAX_RANGES: usize = 8192;

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// Counts the sender's messages within the session, from 1. A repeated number is dropped, a gap ends the session.
    pub number: u64,
    /// The sender's epoch. A message of an older epoch than the receiver's is not applied and is answered with
    /// [`Body::Newer`].
    pub epoch: Epoch,
    pub body: Body,
}

number! {
    /// Identifies a request within a session and direction; answered by [`Body::Done`] with the same number.
    pub struct PeerOp;
}

/// Why a replica did not carry out a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerOpError {
    /// A disk of the replica failed; repeating the request does not help.
    Disk,
    /// The replica's copy is damaged, or it does not have the volume.
    Unreadable,
}

/// The kinds of message. Their encoding is by position: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Opens a handshake: the sender's volume table.
    Hello {
        /// Ascending, each with the highest number given to a write or received.
        volumes: Vec<(VolumeInfo, Seq)>,
    },
    /// Extents the sender changed since the last common flush, or has marked dirty.
    Touched {
        volume: VolumeId,
        /// First extent and number of extents.
        ranges: Vec<(ExtentIndex, u64)>,
    },
    /// Ends the opening of a handshake.
    Ready,
    /// The sender's epoch is newer than the message it answers.
    Newer,
    /// A guest's write or discard.
    Write { op: PeerOp, volume: VolumeId, seq: Seq, block: BlockIndex, data: Change },
    /// A whole extent, copied by resync or reconciliation.
    Extent {
        op: PeerOp,
        volume: VolumeId,
        /// Stamp to store the copy under; during reconciliation never above the receiver's newest stamp.
        stamp: Stamp,
        extent: ExtentIndex,
        image: ExtentImage,
    },
    /// A change of the volume table.
    Volume { op: PeerOp, change: VolumeChange },
    /// Make durable every write sent before this message.
    Sync { op: PeerOp },
    /// Requests the receiver's copy of an extent that is damaged at the sender.
    Fetch { op: PeerOp, volume: VolumeId, extent: ExtentIndex },
    /// The sender's copy of an extent of a volume that the receiver writes is damaged: requests a [`Body::Extent`],
    /// which the receiver orders among its own writes.
    Want { volume: VolumeId, extent: ExtentIndex },
    /// The answer to a request.
    Done { op: PeerOp, result: Result<Answer, PeerOpError> },
    /// Both replicas hold these volumes durably up to and including these numbers.
    Confirm { through: Vec<(VolumeId, Seq)> },
    /// Reconciliation: every extent that the sender had to copy is acknowledged.
    Copied,
    /// Reconciliation: the sender's store is synced.
    Synced,
    /// The sender's pool is full and requests to it wait (`true`), or has space again (`false`).
    Full(bool),
    /// As [`Body::Extent`]; in addition the receiver marks blocks as lost, because the sender cannot read them and the
    /// receiver's own copy may be older.
    ExtentWithLost {
        op: PeerOp,
        volume: VolumeId,
        stamp: Stamp,
        extent: ExtentIndex,
        image: ExtentImage,
        /// Mask of the blocks to mark, all of them bad in `image`.
        lost: u16,
    },
    /// Commands of the sender's store waited for a checkpoint that makes progress, so its replies may be late. Sent at most
    /// every fifteenth of [`Tuning::stuck`](crate::Tuning::stuck).
    StoreProgress {
        /// Number of checkpoint steps that the sender's disks have completed since its store was opened. The message counts
        /// only if this number has grown within the session.
        steps: u64,
    },
}

/// The payload of [`Body::Write`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The new content of whole blocks.
    Data(Bytes),
    /// This many blocks read as zeros from now on.
    Discard(u64),
}

/// The payload of a successful [`Body::Done`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Ok,
    /// The content of the extent that was fetched.
    Extent(ExtentImage),
}
