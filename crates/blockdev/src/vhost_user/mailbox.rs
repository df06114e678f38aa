//! Completions on their way from any thread to the device's thread.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::BackendError;

/// The answer of the backend to one part of one job.
pub(crate) struct Completion {
    /// Number of the job, see [`super::engine`].
    pub job: u64,
    /// Which part of the job was answered.
    pub part: Part,
    /// What the backend said.
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
    /// The piece itself.
    Main,
    /// The flush after a write of a driver that knows no flush.
    Through,
}

/// An unbounded queue; what bounds it is the number of requests the engine lets in.
pub(crate) struct Mailbox {
    queue: Mutex<Vec<Completion>>,
    bell: File,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::new(Vec::new()), bell: File::from(bell) })
    }

    /// Put one completion in and wake the device's thread if it may be asleep.
    pub fn push(&self, completion: Completion) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push(completion);
        drop(queue);
        if was_empty {
            self.ring();
        }
    }

    /// Wake the device's thread without a completion: something else wants its attention.
    pub fn ring(&self) {
        // A full counter (the only error) means that the bell rings already.
        let _ = (&self.bell).write(&1u64.to_ne_bytes());
    }

    /// Take everything that has arrived and silence the bell.
    pub fn take(&self) -> Vec<Completion> {
        let mut count = [0; 8];
        let _ = (&self.bell).read(&mut count);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wait until the bell rings, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut fds = [PollFd::new(&self.bell, PollFlags::IN)];
        // An interrupted or failed wait is the same as an early one: the caller looks and waits again.
        let _ = poll(&mut fds, Timespec::try_from(limit).ok().as_ref());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
