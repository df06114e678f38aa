//! What the mirror is told and what it asks for.

use crate::message::PeerMessage;
use crate::types::*;
use bytes::Bytes;
use std::ops::Range;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time passed. Send one at least every 100 ms.
    Tick,
    /// A guest's request. Answered once by [`Action::Complete`], possibly much later.
    Guest {
        /// Its name.
        req: RequestId,
        /// The volume.
        volume: VolumeId,
        /// What is asked.
        op: GuestOp,
    },
    /// A change of the volume table. Answered once by [`Action::Complete`].
    Volume {
        /// Its name.
        req: RequestId,
        /// The change.
        change: VolumeChange,
    },
    /// The store finished a command.
    Stored {
        /// Which.
        op: StoreOp,
        /// How.
        result: Result<StoreOutput, StoreError>,
    },
    /// A session with the peer stands. Any older one is over.
    PeerUp {
        /// Its name.
        session: Session,
    },
    /// The session ended.
    PeerDown {
        /// Its name; ignored unless current.
        session: Session,
    },
    /// The peer said something.
    Peer {
        /// Where it came from; ignored unless current.
        session: Session,
        /// What.
        message: PeerMessage,
    },
    /// `quorum` knows a configuration or an acknowledgement set.
    View(View),
    /// Who writes a volume from now on. Remembered also for volumes that do not exist yet. If it was this node and no
    /// longer is, the volume is closed as by [`Event::Close`]; requests for a volume of another writer are refused.
    Writer {
        /// The volume.
        volume: VolumeId,
        /// Who.
        writer: Writer,
    },
    /// The VM of a volume is gone: its waiting requests are answered with [`GuestError::Closed`] and never run.
    Close {
        /// The volume.
        volume: VolumeId,
    },
    /// The lease lapsed: start no guest request until [`Event::Resume`].
    Hold,
    /// The right to run is back.
    Resume,
    /// The scrub found a damaged extent.
    Damaged {
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// The store has room again: try now what waited for space.
    SpaceFreed,
}

/// One thing to do. To be carried out in the order given, all of one event before the next event is handled: an event that
/// comes up while actions are carried out waits until they are done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run a store command. Commands must take effect in the order given; they may finish in any order.
    Store {
        /// To be named in [`Event::Stored`].
        op: StoreOp,
        /// The command.
        command: StoreCommand,
    },
    /// Send on the current session, in order. Dropped silently if the session is gone.
    Send(PeerMessage),
    /// Answer a request.
    Complete {
        /// Which.
        req: RequestId,
        /// How.
        result: Result<Reply, GuestError>,
    },
    /// Close the current session and connect anew; says why.
    Disconnect(Reason),
    /// The in-sync peer owes an acknowledgement for longer than [`Tuning::stuck`]. For `quorum`.
    PeerStuck,
    /// Resync is complete, durable, and from now on each write waits for the peer: it may be made a member. For `quorum`.
    PeerClean,
    /// The peer is no longer clean. For `quorum`; carried out before any later action of the same batch.
    PeerDirty,
    /// The peer's epoch is newer: learn its configuration.
    NewerEpoch(Epoch),
    /// A volume whose writer was taken away has no request in flight any more: hand it over.
    Drained {
        /// The volume.
        volume: VolumeId,
    },
    /// This node's store refused something: it is faulty. For `quorum` and the person.
    Faulty {
        /// What failed.
        error: StoreError,
    },
    /// A pool is full (`true`) or has room again; guests wait meanwhile.
    Full {
        /// Whether it is the peer's pool.
        peer: bool,
        /// Whether it is full.
        full: bool,
    },
    /// A damaged extent was repaired from the peer.
    Healed {
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// An extent is damaged here and no good copy could be had.
    Lost {
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// A guest was told that a block cannot be read: it is damaged here, and the peer, which may have it, is no member.
    Unreadable {
        /// The volume.
        volume: VolumeId,
        /// The first extent of the read.
        extent: u64,
    },
    /// The volume table changed here by the peer's word.
    VolumesChanged,
    /// How far a resync is; sent about once per second and at its end.
    Progress(Progress),
}

/// Why a session is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A message is missing.
    #[error("a message of the peer is missing")]
    Hole,
    /// The peer said something that the protocol does not allow now.
    #[error("the peer broke the replication protocol")]
    Protocol,
    /// A peer that is being brought back in sync stopped answering.
    #[error("the peer stopped answering during resync")]
    Stalled,
    /// Both nodes believe they write the same volume.
    #[error("both nodes claim to be the writer of one volume")]
    TwoWriters,
}

/// How far a resync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes the peer acknowledged since the resync began.
    pub copied: u64,
    /// Bytes left to copy, at most.
    pub left: u64,
    /// When it began.
    pub since: Time,
    /// Extents that cannot be read here and hold the resync up.
    pub unreadable: u64,
}

/// What the store shall do. Blocks of 4 KiB, extents of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Put blocks into the journal. Done: survives a crash of the process.
    Write {
        /// The volume.
        volume: VolumeId,
        /// Its place in the history; equal to or below the newest for repairs.
        stamp: Stamp,
        /// First block.
        block: u64,
        /// Whole blocks.
        data: Bytes,
    },
    /// The same for blocks that read as zeros from now on.
    Discard {
        /// The volume.
        volume: VolumeId,
        /// Its place in the history.
        stamp: Stamp,
        /// First block.
        block: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Write the blocks of `image` that `wanted` names (see [`ExtentImage::runs`]). Need not be atomic.
    WriteExtent {
        /// The volume.
        volume: VolumeId,
        /// The stamp for every block.
        stamp: Stamp,
        /// Which extent.
        extent: u64,
        /// The content.
        image: ExtentImage,
        /// Which of its blocks.
        wanted: u16,
    },
    /// Read blocks. Answered with [`StoreOutput::Data`].
    Read {
        /// The volume.
        volume: VolumeId,
        /// First block.
        block: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Read an extent, damaged blocks included as `bad`. Answered with [`StoreOutput::Extent`].
    ReadExtent {
        /// The volume.
        volume: VolumeId,
        /// Which extent.
        extent: u64,
    },
    /// Make everything done before durable.
    Sync,
    /// Mark extents dirty. Done: durable.
    MarkDirty {
        /// Volume and ranges.
        marks: Vec<(VolumeId, Vec<Range<u64>>)>,
    },
    /// Forget every dirty mark of every volume.
    ClearDirty,
    /// Both replicas hold the volume durably up to this number: its tail may forget older writes.
    Confirm {
        /// The volume.
        volume: VolumeId,
        /// Up to and including.
        seq: Seq,
    },
    /// Which extents were touched after the last confirmation: by a number above it, or by any command given after it,
    /// whatever its stamp. More is allowed. Answered with [`StoreOutput::Tail`].
    Tail {
        /// The volume.
        volume: VolumeId,
    },
    /// Change the volume table, durably. Idempotent.
    Volume(VolumeChange),
}

/// What a finished store command yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutput {
    /// Nothing but success.
    Done,
    /// For [`StoreCommand::Read`].
    Data(Bytes),
    /// For [`StoreCommand::ReadExtent`].
    Extent(ExtentImage),
    /// For [`StoreCommand::Tail`].
    Tail(ExtentSet),
}

/// Why a store command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Blocks that fail their checksum.
    #[error("{} block(s) fail their checksum; they are repaired from the peer when it has them", blocks.len())]
    Corrupt {
        /// Which, ascending.
        blocks: Vec<u64>,
    },
    /// The pool is full.
    #[error("the pool is full; free space or add a disk")]
    NoSpace,
    /// A disk failed.
    #[error("a pool disk failed; replace it")]
    Io,
    /// The volume does not exist here.
    #[error("the volume does not exist on this node; compare the volume tables")]
    NoVolume,
}

/// The knobs of a mirror, each with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Age at which an unanswered request makes the peer stuck, in nanoseconds.
    pub stuck: Time,
    /// Time between background confirmations while there are unconfirmed writes, in nanoseconds.
    pub confirm: Time,
    /// Time between attempts of what waits for space or for a readable extent, in nanoseconds.
    pub retry: Time,
    /// Extents in flight in a resync while no guest waits.
    pub window: usize,
    /// Extents in flight in a resync while guests have requests in flight: the floor.
    pub window_busy: usize,
    /// Guest writes in flight, in bytes; each counts at least [`MIN_WEIGHT`]. The last one may exceed it.
    pub flight: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            stuck: 3_000_000_000,
            confirm: 1_000_000_000,
            retry: 1_000_000_000,
            window: 32,
            window_busy: 4,
            flight: 24 << 20,
        }
    }
}

/// What a mirror finds in its store when it starts.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The volume table with the newest write of each.
    pub volumes: Vec<VolumeInfo>,
    /// The durable dirty map.
    pub dirty: Vec<(VolumeId, ExtentSet)>,
}
