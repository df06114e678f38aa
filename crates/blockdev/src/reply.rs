//! [`ReplyTo`]: the receiver of the result of one request to a backend.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::BackendError;
use crate::mailbox::{Mailbox, Part, PartCompletion};

/// The result of one request: the bytes of a read; no bytes for each other request.
pub type RequestResult = Result<Bytes, BackendError>;

/// The receiver of the result of one request. The backend calls [`ReplyTo::complete`] on any thread, inside
/// [`Backend::submit`](crate::Backend::submit) or at any later time.
///
/// If it is dropped without a result, a guest's request stays in flight and the guest waits. This is correct only while
/// the daemon ends: the next daemon submits the request again. A caller that waits on a channel gets the channel's
/// error, for one of two halves when the other half has ended too.
#[must_use = "a guest waits for the result: a dropped `ReplyTo` leaves its request in flight"]
pub struct ReplyTo(Target);

enum Target {
    /// The job of a device to which a part belongs.
    Device { mailbox: Arc<Mailbox>, job: u64, part: Part },
    /// One of the two replies that a backend made from one.
    Half(Arc<Mutex<Halves>>),
    /// A caller that waits on a channel.
    Channel(Sender<RequestResult>),
}

/// The state that two halves share. If a half is dropped without a result, `original` is dropped with the other half.
struct Halves {
    /// Number of halves without a result.
    left: u8,
    /// The first error of a half.
    error: Option<BackendError>,
    /// The reply that was split; `None` once it is completed.
    original: Option<ReplyTo>,
}

impl ReplyTo {
    /// A receiver that puts the result into the mailbox of a device.
    pub(crate) fn device(mailbox: Arc<Mailbox>, job: u64, part: Part) -> Self {
        Self(Target::Device { mailbox, job, part })
    }

    /// A receiver that sends the result to a channel, for a caller that is no device, such as a test. If the channel's
    /// other end is gone, the result is dropped.
    pub fn channel(sender: Sender<RequestResult>) -> Self {
        Self(Target::Channel(sender))
    }

    /// Makes two replies from this one, for a change that the backend carries out in two parts. This one is completed
    /// when both are: without bytes, or with the first error. If one of the two is dropped without a result, this one
    /// is dropped.
    pub fn split(self) -> [Self; 2] {
        let halves = Arc::new(Mutex::new(Halves { left: 2, error: None, original: Some(self) }));
        [Self(Target::Half(halves.clone())), Self(Target::Half(halves))]
    }

    /// Delivers the result to the caller that submitted the request.
    pub fn complete(self, result: RequestResult) {
        match self.0 {
            Target::Device { mailbox, job, part } => mailbox.push(PartCompletion { job, part, result }),
            Target::Half(halves) => {
                let mut halves = halves.lock().unwrap_or_else(PoisonError::into_inner);
                halves.left -= 1;
                if let Err(error) = result {
                    halves.error.get_or_insert(error);
                }
                if halves.left == 0
                    && let Some(original) = halves.original.take()
                {
                    let error = halves.error.take();
                    drop(halves);
                    original.complete(error.map_or_else(|| Ok(Bytes::new()), Err));
                }
            }
            Target::Channel(sender) => drop(sender.send(result)),
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Device { job, part, .. } => write!(f, "job {job} {part:?}"),
            Target::Half(halves) => {
                let halves = halves.lock().unwrap_or_else(PoisonError::into_inner);
                write!(f, "half of {:?}", halves.original)
            }
            Target::Channel(_) => f.write_str("channel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{TryRecvError, channel};

    #[test]
    fn two_halves_give_one_reply_with_the_first_error() {
        let (sender, results) = channel();
        let [first, second] = ReplyTo::channel(sender.clone()).split();
        assert_eq!(format!("{first:?}"), "half of Some(channel)");
        first.complete(Ok(Bytes::new()));
        assert!(results.try_recv().is_err(), "one half is not the whole");
        second.complete(Ok(Bytes::new()));
        assert!(matches!(results.try_recv(), Ok(Ok(_))));
        let [first, second] = ReplyTo::channel(sender).split();
        second.complete(Err(BackendError::OutOfRange));
        first.complete(Err(BackendError::failed("later")));
        assert!(matches!(results.try_recv(), Ok(Err(BackendError::OutOfRange))));
        assert!(results.try_recv().is_err(), "one result for one request");
    }

    #[test]
    fn a_half_that_is_dropped_without_a_result_gives_the_waiting_side_an_error() {
        let (sender, results) = channel();
        let [first, second] = ReplyTo::channel(sender).split();
        drop(first);
        assert_eq!(results.try_recv().unwrap_err(), TryRecvError::Empty, "the other half may still have a result");
        second.complete(Ok(Bytes::new()));
        // `Disconnected` is what a blocking `recv` returns as its error: it does not wait, and there is no success.
        assert_eq!(results.try_recv().unwrap_err(), TryRecvError::Disconnected);

        let (sender, results) = channel();
        let [first, second] = ReplyTo::channel(sender).split();
        first.complete(Ok(Bytes::new()));
        drop(second);
        assert_eq!(results.try_recv().unwrap_err(), TryRecvError::Disconnected);
    }
}
