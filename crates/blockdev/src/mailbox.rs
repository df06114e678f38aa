//! Completions on their way from any thread to the device's thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::BackendError;

/// The answer of the backend to one part of one job.
pub(crate) struct PartCompletion {
    /// Number of the job, see [`crate::vhost_user::engine`].
    pub job: u64,
    pub part: Part,
    pub result: Result<Bytes, BackendError>,
}

/// A part of a job that is at the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The old content of a partial block, to be merged at this place of the job's buffer.
    Edge {
        /// Byte position of the block in the buffer.
        at: usize,
    },
    /// The request for the piece.
    Main,
    /// The flush after a write, for a driver without FLUSH.
    Flush,
}

/// A queue without a bound of its own: the engine bounds the number of requests.
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
        // A full counter (the only error) means that it is awake already.
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }

    /// Takes all completions and clears the wake-up.
    pub fn take(&self) -> Vec<PartCompletion> {
        let mut count = [0; 8];
        let _ = (&self.wake).read(&mut count);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a wake-up, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut fds = [PollFd::new(&self.wake, PollFlags::IN)];
        // An interrupted or failed wait is the same as an early one: the caller looks and waits again.
        let _ = poll(&mut fds, Timespec::try_from(limit).ok().as_ref());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
