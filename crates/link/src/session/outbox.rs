//! The sending side of a session: a queue limited in messages and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::frame::MAX_PAYLOAD;

/// The errors of queueing a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session has ended; the next [`super::Event::Up`] brings a new outbox.
    #[error("the session is over")]
    Down,
    /// The queue is full. The caller sends later, or ends the session.
    #[error("the queue to the peer is full")]
    Full,
    /// The message is longer than 2 MiB.
    #[error("a message of {length} bytes is too long for the peer link")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
}

/// Capacity of the queue, in messages and in payload bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// A message in the queue. Dropping it frees its bytes for other messages.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) payload: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// Sends messages on one session, in the order in which they were queued. Clones share the queue. When the last clone
/// is dropped, the queued messages are sent and the session ends.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Queued>,
    free_bytes: Arc<Semaphore>,
    round_trip: Arc<AtomicU64>,
}

impl Outbox {
    pub(super) fn new(limits: QueueLimits, round_trip: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, receiver) = mpsc::channel(limits.messages.max(1));
        let free_bytes = Arc::new(Semaphore::new(limits.bytes.clamp(MAX_PAYLOAD, Semaphore::MAX_PERMITS)));
        (Self { queue, free_bytes, round_trip }, receiver)
    }

    /// The length of `payload`, which is at most [`MAX_PAYLOAD`].
    fn checked_size(payload: &Bytes) -> Result<u32, SendError> {
        let too_long = SendError::TooLong { length: payload.len() };
        if payload.len() > MAX_PAYLOAD {
            return Err(too_long);
        }
        u32::try_from(payload.len()).map_err(|_| too_long)
    }

    /// Queues `payload`; waits until the queue has space.
    ///
    /// # Errors
    /// [`SendError::Down`] if the session has ended, [`SendError::TooLong`] for more than 2 MiB.
    pub async fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let size = Self::checked_size(&payload)?;
        let room = tokio::select! {
            room = Arc::clone(&self.free_bytes).acquire_many_owned(size) => room,
            () = self.queue.closed() => return Err(SendError::Down),
        };
        let permit = room.map_err(|_| SendError::Down)?;
        self.queue.send(Queued { payload, _permit: permit }).await.map_err(|_| SendError::Down)
    }

    /// Queues `payload` if there is space now.
    ///
    /// # Errors
    /// Any [`SendError`].
    pub fn try_send(&self, payload: Bytes) -> Result<(), SendError> {
        let size = Self::checked_size(&payload)?;
        let permit = match Arc::clone(&self.free_bytes).try_acquire_many_owned(size) {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) if self.queue.is_closed() => return Err(SendError::Down),
            Err(TryAcquireError::NoPermits) => return Err(SendError::Full),
            Err(TryAcquireError::Closed) => return Err(SendError::Down),
        };
        self.queue.try_send(Queued { payload, _permit: permit }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Down,
        })
    }

    /// The last measured round-trip time to the peer, including scheduling delays of both daemons; `None` before the
    /// first measurement.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_is_limited_in_messages_and_in_bytes() {
        let (outbox, mut queue) = Outbox::new(QueueLimits { messages: 2, bytes: 0 }, Arc::default());
        outbox.try_send(Bytes::from(vec![0; MAX_PAYLOAD - 1])).unwrap();
        assert_eq!(outbox.try_send(Bytes::from_static(b"xx")), Err(SendError::Full));
        outbox.try_send(Bytes::from_static(b"x")).unwrap();
        assert_eq!(outbox.try_send(Bytes::new()), Err(SendError::Full));
        drop(queue.recv().await.unwrap());
        outbox.try_send(Bytes::from_static(b"y")).unwrap();
        drop(queue);
        assert_eq!(outbox.try_send(Bytes::new()), Err(SendError::Down));
        assert_eq!(outbox.send(Bytes::from(vec![0; MAX_PAYLOAD])).await, Err(SendError::Down));
    }

    #[tokio::test]
    async fn a_message_longer_than_a_frame_is_refused() {
        let (outbox, _queue) = Outbox::new(QueueLimits { messages: 2, bytes: 0 }, Arc::default());
        let long = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
        assert!(matches!(outbox.send(long).await, Err(SendError::TooLong { .. })));
    }
}
