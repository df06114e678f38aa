//! The sending side of a session: a queue bounded in messages and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::frame::MAX_PAYLOAD;

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is over; wait for the next [`super::Event::Up`].
    #[error("the session is over")]
    Down,
    /// The queue is full; send later, or end the session if the peer must not be that late.
    #[error("the queue to the peer is full")]
    Full,
    /// The message is longer than 2 MiB.
    #[error("a message of {length} bytes is too long for the peer link")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
}

/// A message in the queue; its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) payload: Bytes,
    _place: OwnedSemaphorePermit,
}

/// Sends messages on one session, in order. Clones share the queue. The session ends when the last
/// clone is dropped.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Queued>,
    endpoints: Arc<Semaphore>,
    round_trip: Arc<AtomicU64>,
}

impl Outbox {
    pub(super) fn new(messages: usize, bytes: usize, round_trip: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, receiver) = mpsc::channel(messages.max(1));
        let endpoints = Arc::new(Semaphore::new(bytes.clamp(MAX_PAYLOAD, Semaphore::MAX_PERMITS)));
        (Self { queue, endpoints, round_trip }, receiver)
    }

    fn size(payload: &Bytes) -> Result<u32, SendError> {
        let too_long = SendError::TooLong { length: payload.len() };
        if payload.len() > MAX_PAYLOAD {
            return Err(too_long);
        }
        u32::try_from(payload.len()).map_err(|_| too_long)
    }

    /// Queues `payload`, waiting for room.
    ///
    /// # Errors
    /// [`SendError::Down`] or [`SendError::TooLong`].
    pub async fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let size = Self::size(&payload)?;
        let room = tokio::select! {
            room = Arc::clone(&self.endpoints).acquire_many_owned(size) => room,
            () = self.queue.closed() => return Err(SendError::Down),
        };
        let place = room.map_err(|_| SendError::Down)?;
        self.queue.send(Queued { payload, _place: place }).await.map_err(|_| SendError::Down)
    }

    /// Queues `payload` if there is room now.
    ///
    /// # Errors
    /// Any [`SendError`].
    pub fn try_send(&self, payload: Bytes) -> Result<(), SendError> {
        let size = Self::size(&payload)?;
        let place = match Arc::clone(&self.endpoints).try_acquire_many_owned(size) {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits) if self.queue.is_closed() => return Err(SendError::Down),
            Err(TryAcquireError::NoPermits) => return Err(SendError::Full),
            Err(TryAcquireError::Closed) => return Err(SendError::Down),
        };
        self.queue.try_send(Queued { payload, _place: place }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Down,
        })
    }

    /// Last measured time to the peer and back, including its scheduling; `None` before the first.
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
    async fn the_queue_is_bounded_in_messages_and_bytes() {
        let (outbox, mut queue) = Outbox::new(2, 0, Arc::default());
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
    async fn a_message_beyond_a_frame_is_refused() {
        let (outbox, _queue) = Outbox::new(2, 0, Arc::default());
        let long = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
        assert!(matches!(outbox.send(long).await, Err(SendError::TooLong { .. })));
    }
}
