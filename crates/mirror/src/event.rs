//! Events, actions and store commands: the interface between [`Mirror`](crate::Mirror) and its caller.

use crate::message::PeerMessage;
use crate::types::*;
use bytes::Bytes;
use std::ops::Range;

/// Input of [`Mirror::handle`](crate::Mirror::handle).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passed. Send one at least every 100 ms.
    Tick,
    /// A guest's request. Answered once by [`Action::Complete`], possibly much later.
    Guest { req: RequestId, volume: VolumeId, op: GuestOp },
    /// A change of the volume table. Answered once by [`Action::Complete`].
    Volume { req: RequestId, change: VolumeChange },
    /// The store finished a command.
    Stored { op: StoreOp, result: Result<StoreOutput, StoreError> },
    /// A command waits for a checkpoint of the store, and the disks have completed a step of that checkpoint. The command may
    /// be answered right after this event.
    StoreProgress {
        /// The command. Ignored if it is answered already.
        op: StoreOp,
        /// Number of checkpoint steps that the disks have completed since the store was opened.
        steps: u64,
    },
    /// A session with the peer was established; it replaces an older one.
    PeerUp { session: Session },
    /// The session ended.
    PeerDown {
        /// The event is ignored unless this is the current session.
        session: Session,
    },
    /// A message of the peer arrived.
    Peer {
        /// The message is ignored unless this is the current session.
        session: Session,
        message: PeerMessage,
    },
    /// `quorum` knows a new configuration or a new acknowledgement set.
    View(View),
    /// Sets the writer of a volume, also of a volume that does not exist yet. When this node stops being the writer,
    /// the volume is closed as by [`Event::Close`]. Requests for a volume that another node writes are refused.
    Writer { volume: VolumeId, writer: Writer },
    /// The VM of a volume ended: the requests that wait are answered with [`GuestError::Closed`] and never run.
    Close { volume: VolumeId },
    /// The lease expired: no guest request starts until [`Event::Resume`].
    Hold,
    /// The lease is valid again.
    Resume,
    /// A checkpoint of the store found damage in an extent: it is repaired from the peer when both nodes are in sync.
    Damaged { volume: VolumeId, extent: ExtentIndex },
    /// The store has space again: commands that wait for space are repeated now.
    SpaceFreed,
}

/// Output of [`Mirror::handle`](crate::Mirror::handle). The caller carries out all actions of one event in the order
/// given before it handles the next event; events that arise meanwhile wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run a store command. Commands must take effect in the order given; their results may arrive in any order.
    Store {
        /// Returned with the result in [`Event::Stored`].
        op: StoreOp,
        command: StoreCommand,
    },
    /// Send on the current session, in order. Dropped silently if the session is gone.
    Send(PeerMessage),
    /// Answer a request.
    Complete { req: RequestId, result: Result<GuestReply, GuestError> },
    /// Close the current session for this reason and connect again.
    Disconnect(Reason),
    /// The in-sync peer has not acknowledged a request for [`Tuning::stuck`], or a guest request or change has waited for
    /// the peer for that long, also without a session. Progress of the peer's store restarts the time, within
    /// [`Tuning::progress_limit`]. Repeated at this interval while it holds. For `quorum`.
    PeerStuck,
    /// This node's store has left a command unanswered for [`Tuning::stuck`] without progress, or for longer than
    /// [`Tuning::progress_limit`] allows. For `quorum`.
    StorageStuck,
    /// This node's store has answered every command that was unanswered at [`Action::StorageStuck`]. For `quorum`.
    StorageAnswers,
    /// Resync is complete and durable, and from now on each write waits for the peer, so the peer may be made a
    /// member. For `quorum`.
    PeerClean,
    /// The peer is no longer clean. For `quorum`; carried out before any later action of the same batch.
    PeerDirty,
    /// The peer's epoch is newer: the caller must learn the configuration of that epoch.
    NewerEpoch(Epoch),
    /// A volume that this node stopped writing has no request in flight any more: it may be handed over.
    Drained { volume: VolumeId },
    /// This node's store refused a command: the node is faulty. For `quorum` and the administrator.
    Faulty { error: StoreError },
    /// A pool became full, or has space again. Guest writes wait while it is full.
    Full {
        /// The peer's pool; otherwise this node's.
        peer: bool,
        full: bool,
    },
    /// A damaged extent was repaired from the peer.
    Healed { volume: VolumeId, extent: ExtentIndex },
    /// Blocks of an extent cannot be read from a replica that holds every acknowledged write. Reads of them fail until a
    /// guest writes them. Given once per extent while the mirror exists.
    Lost { volume: VolumeId, extent: ExtentIndex, reason: LostReason },
    /// A guest's read failed: the block is damaged here, and the peer, which may have a good copy, is no member or could
    /// not read any of it.
    Unreadable {
        volume: VolumeId,
        /// The first extent of the read.
        extent: ExtentIndex,
    },
    /// The volume table of this node changed at the peer's request.
    VolumesChanged,
    /// Progress of a resync; sent about once per second and at its end.
    Progress(Progress),
}

/// Why no replica can give a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// Both replicas have the block, and neither can read it.
    UnreadableOnBoth,
    /// This node cannot read the block, and the peer, which is no member or misses writes, may hold an older version of it.
    PeerOutOfDate,
}

/// Why a session is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The message numbers have a gap.
    #[error("a message of the peer is missing")]
    MissingMessage,
    /// The peer sent a message that the protocol does not allow in this phase.
    #[error("the peer broke the replication protocol")]
    Protocol,
    /// The peer stopped answering during resync.
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
    /// Upper bound of the bytes left to copy.
    pub left: u64,
    /// Start of the resync.
    pub since: BootTime,
    /// Number of extents that this node could not read or the peer refused, and whose copy is to be repeated. Blocks that
    /// stay unreadable are marked as lost at the peer.
    pub unreadable: u64,
}

/// A command for the store. Blocks of 4 KiB, extents of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Write blocks to the journal. When the command is done, they survive a crash of the process.
    Write {
        volume: VolumeId,
        /// Equal to or below the newest stamp of the volume for repairs.
        stamp: Stamp,
        block: BlockIndex,
        /// A whole number of blocks.
        data: Bytes,
    },
    /// As `Write`, for blocks that read as zeros from now on.
    Discard { volume: VolumeId, stamp: Stamp, block: BlockIndex, count: u64 },
    /// Write the blocks of `image` that `wanted` names (see [`ExtentImage::runs`]). Need not be atomic.
    WriteExtent {
        volume: VolumeId,
        /// Stamp of every block written.
        stamp: Stamp,
        extent: ExtentIndex,
        image: ExtentImage,
        /// Mask of the blocks to write.
        wanted: u16,
        /// Mask of the blocks to mark as lost, none of which is written: a read of one fails until it is written or
        /// discarded. The marks are as durable as writes.
        lost: u16,
        /// Whether the blocks may take the space that is held back from guests' writes.
        use_reserve: bool,
    },
    /// Read blocks. Answered with [`StoreOutput::Data`].
    Read { volume: VolumeId, block: BlockIndex, count: u64 },
    /// Read an extent, damaged blocks included as `bad`. Answered with [`StoreOutput::Extent`].
    ReadExtent { volume: VolumeId, extent: ExtentIndex },
    /// Make durable every command that was done before this one was given.
    Sync,
    /// Mark extents dirty. When the command is done, the marks are durable.
    MarkDirty { marks: Vec<(VolumeId, Vec<Range<ExtentIndex>>)> },
    /// Forget every dirty mark of every volume.
    ClearDirty,
    /// Both replicas hold the volume durably up to this number: its list of unconfirmed extents may drop writes up to
    /// it.
    Confirm {
        volume: VolumeId,
        /// The last number confirmed.
        seq: Seq,
    },
    /// List the extents touched after the last confirmation: by a write with a higher number, or by any command given
    /// after it, with any stamp. The list may contain further extents. Answered with [`StoreOutput::Unconfirmed`].
    ListUnconfirmed { volume: VolumeId },
    /// Change the volume table, durably. Idempotent.
    Volume(VolumeChange),
}

/// What a finished store command yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutput {
    Done,
    /// The blocks asked for by [`StoreCommand::Read`].
    Data(Bytes),
    /// The extent asked for by [`StoreCommand::ReadExtent`].
    Extent(ExtentImage),
    /// The extents asked for by [`StoreCommand::ListUnconfirmed`].
    Unconfirmed(ExtentSet),
}

/// Why a store command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Blocks that fail their checksum.
    #[error("{} block(s) fail their checksum; they are repaired from the peer when it has them", blocks.len())]
    Corrupt {
        /// Numbers of these blocks, ascending.
        blocks: Vec<BlockIndex>,
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

/// Settings of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Age in nanoseconds at which an unanswered request makes the peer count as stuck, and an unanswered command the local
    /// store. The time that passes between two ticks counts with at most a tenth of it.
    pub stuck: u64,
    /// Longest time in nanoseconds for which steps of checkpoints ([`Event::StoreProgress`]) excuse one command of the local
    /// store or one request to the peer. A store that needs longer than this and [`Tuning::stuck`] for one command counts as
    /// stuck even if it makes progress. A driver in a guest gives its disk up at about this time: Windows does after 60 s.
    pub progress_limit: u64,
    /// Interval in nanoseconds of background confirmations while there are unconfirmed writes.
    pub confirm: u64,
    /// Interval in nanoseconds at which commands that wait for space, and copies of unreadable extents, are repeated.
    pub retry: u64,
    /// Time in nanoseconds for which a block of a resync's source must be unreadable before it counts as lost: an error of a
    /// disk or controller may pass.
    pub lost_after: u64,
    /// Extents in flight in a resync while no guest waits.
    pub window: usize,
    /// Extents in flight in a resync while guests have requests in flight.
    pub window_busy: usize,
    /// Guest writes in flight, in bytes; each counts at least [`MIN_WEIGHT`]. The last one may exceed it.
    pub flight: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            stuck: 3_000_000_000,
            progress_limit: 60_000_000_000,
            confirm: 1_000_000_000,
            retry: 1_000_000_000,
            lost_after: 60_000_000_000,
            window: 32,
            window_busy: 4,
            flight: 24 << 20,
        }
    }
}

/// Content of the store when a mirror starts.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The volume table, with the newest stamp of each volume.
    pub volumes: Vec<VolumeInfo>,
    /// The durable dirty map.
    pub dirty: Vec<(VolumeId, ExtentSet)>,
}
