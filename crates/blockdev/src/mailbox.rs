//! [`Mailbox`]: the queue in which any thread puts completions for the device's thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::BackendError;

/// The backend's answer to one part of a job.
pub(crate) struct PartCompletion {
    /// Number of the job, see [`crate::vhost_user::engine`].
    pub job: u64,
    pub part: Part,
    pub result: Result<Bytes, BackendError>,
}

/// The part of a job that a request to the backend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A read of the old content of a block of which the job changes only a part. The job's buffer keeps the part that
    /// does not change.
    OldBlock {
        /// Byte offset of the block in the buffer.
        at: usize,
    },
    /// The request for the piece itself, or the flush that a job consists of.
    Main,
    /// The flush after a change, for a driver that did not accept the feature FLUSH.
    Flush,
}

/// A queue of completions, and an eventfd that wakes the device's thread. The queue has no limit of its own: the engine
/// limits the number of requests.
pub(crate) struct Mailbox {
    queue: Mutex<Vec<PartCompletion>>,
    wake: File,
}

impl Mailbox {
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::new(Vec::new()), wake: File::from(wake) })
    }

    /// Adds a completion, and wakes the device's thread if the queue was empty.
    pub fn push(&self, completion: PartCompletion) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push(completion);
        drop(queue);
        if was_empty {
            self.wake_up();
        }
    }

    /// Wakes the device's thread without a completion.
    pub fn wake_up(&self) {
        // The only error is a full counter, and then the thread is about to wake up already.
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }

    /// Takes all completions and resets the eventfd.
    pub fn take(&self) -> Vec<PartCompletion> {
        let mut count = [0; 8];
        let _ = (&self.wake).read(&mut count);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the thread is woken up, at most for `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut fds = [PollFd::new(&self.wake, PollFlags::IN)];
        // An interrupted or failed wait only returns early: the caller checks its condition and waits again.
        let _ = poll(&mut fds, Timespec::try_from(limit).ok().as_ref());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
