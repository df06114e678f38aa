//! The clients that wait for the end of a leave.

use dyad_control::Reply;
use tokio::sync::oneshot;

/// A client that waits for the end of a leave.
#[derive(Debug)]
pub(in crate::state) enum LeaveWaiter {
    /// It asked for the leave itself.
    ReplyTo(oneshot::Sender<Reply>),
    /// It asked for an erasure, which begins with the leave.
    Erase(oneshot::Sender<Reply>),
}
