//! What two mirrors say to each other. Carried in order over one session; the byte form is the link's.

use crate::types::{VolumeChange, VolumeInfo};
use bytes::Bytes;
use dyad_types::{Epoch, ExtentImage, Seq, Stamp, VolumeId};
use serde::{Deserialize, Serialize};

/// The most ranges one [`Body::Touched`] carries: keeps a frame below 256 KiB.
pub const MAX_RANGES: usize = 8192;

/// One message, as the peer sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// Counts the sender's messages within the session, from 1. A repeat is dropped, a hole ends the session.
    pub number: u64,
    /// The sender's epoch. An older one is refused and answered with [`Body::Newer`].
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
}

/// Names a request within a session and direction; answered by [`Body::Done`] with the same number.
pub type PeerOp = u64;

/// Why a replica did not carry out a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerOpError {
    /// Its disks failed; it will not recover by waiting.
    Disk,
    /// Both it and the asker have a bad copy, or the volume is gone.
    Unreadable,
}

/// The kinds of message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Opens a handshake: the sender's volume table.
    Hello {
        /// Its volumes, ascending, each with the highest number given or seen there.
        volumes: Vec<(VolumeInfo, Seq)>,
    },
    /// Extents the sender changed since the last common flush, or has marked dirty.
    Touched {
        /// The volume.
        volume: VolumeId,
        /// Start and count.
        ranges: Vec<(u64, u64)>,
    },
    /// Ends the opening of a handshake.
    Ready,
    /// The sender's epoch is newer than the message it answers.
    Newer,
    /// A guest's write, or a discard when `data` is absent.
    Write {
        /// To be acknowledged by this number.
        op: PeerOp,
        /// The volume.
        volume: VolumeId,
        /// Its place in the volume's history.
        seq: Seq,
        /// First block.
        block: u64,
        /// What to write.
        data: Change,
    },
    /// A whole extent, copied by resync or reconciliation.
    Extent {
        /// To be acknowledged by this number.
        op: PeerOp,
        /// The volume.
        volume: VolumeId,
        /// The stamp to store it under; never above the receiver's history.
        stamp: Stamp,
        /// Which extent.
        extent: u64,
        /// Its content.
        image: ExtentImage,
    },
    /// A change of the volume table.
    Volume {
        /// To be acknowledged by this number.
        op: PeerOp,
        /// The change.
        change: VolumeChange,
    },
    /// Make durable what was sent before this.
    Sync {
        /// To be acknowledged by this number.
        op: PeerOp,
    },
    /// Send your copy of an extent: mine is damaged.
    Fetch {
        /// To be answered by this number.
        op: PeerOp,
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// My copy of an extent of your volume is damaged: send it as a copy, between your writes.
    Want {
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// The answer to a request.
    Done {
        /// Which request.
        op: PeerOp,
        /// How it went.
        result: Result<Answer, PeerOpError>,
    },
    /// Both replicas hold these volumes up to these numbers on stable storage.
    Confirm {
        /// Volume and number.
        through: Vec<(VolumeId, Seq)>,
    },
    /// Reconciliation: every extent the sender had to give is acknowledged.
    Copied,
    /// Reconciliation: the sender's store is synced.
    Synced,
    /// The sender is out of space and keeps requests waiting; or it has space again.
    Full(bool),
}

/// The payload of [`Body::Write`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Whole blocks.
    Data(Bytes),
    /// This many blocks read as zeros from now on.
    Discard(u64),
}

/// The payload of a successful [`Body::Done`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Carried out.
    Ok,
    /// The content of the extent that was fetched.
    Extent(ExtentImage),
}
