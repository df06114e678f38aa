//! A request to a volume of the pool, and the receiver of its result.

use bytes::Bytes;
use dyad_blockdev::{BackendError, ReplyTo};
use dyad_mirror::{GuestError, GuestOp};
use dyad_types::VolumeId;
use std::fmt;
use tokio::sync::oneshot;

/// The result of one request: data for reads, empty otherwise.
pub type VolumeResult = Result<Bytes, VolumeError>;

/// Reasons for which a request to a volume failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The mirror refused the request.
    #[error(transparent)]
    Refused(#[from] GuestError),
    /// The core's state thread ended before it answered.
    #[error("the core is stopping")]
    Stopping,
}

/// The receiver of the result of one request. [`CoreState`](crate::state::CoreState) completes it on its own thread.
pub enum VolumeReplyTo {
    /// A guest's request: the device server writes the result into the guest's ring.
    Guest(ReplyTo),
    /// The task of an import or of the document waits for the result.
    Task(oneshot::Sender<VolumeResult>),
}

impl VolumeReplyTo {
    /// Passes the result on. If the task has ended, the result is dropped.
    pub fn complete(self, result: VolumeResult) {
        match self {
            Self::Guest(reply_to) => reply_to.complete(result.map_err(BackendError::failed)),
            Self::Task(answer) => drop(answer.send(result)),
        }
    }
}

impl fmt::Debug for VolumeReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(reply_to) => write!(f, "Guest({reply_to:?})"),
            Self::Task(_) => f.write_str("Task"),
        }
    }
}

/// A request of a guest, an import or the document's task to a volume.
pub struct VolumeRequest {
    pub volume: VolumeId,
    pub op: GuestOp,
    pub reply_to: VolumeReplyTo,
}

impl fmt::Debug for VolumeRequest {
    /// Without the data of a write: it is a guest's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, (block, count)) = (crate::variant_name::VariantName(&self.op), self.op.span());
        write!(f, "VolumeRequest({:?} {kind:?} volume {} block {block} count {count})", self.reply_to, self.volume)
    }
}
