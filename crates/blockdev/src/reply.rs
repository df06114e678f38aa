//! Where a backend delivers the result of one request.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::BackendError;
use crate::mailbox::{Mailbox, Part, PartCompletion};

/// The result of one request: the bytes of a read, no bytes for each other request.
pub type RequestResult = Result<Bytes, BackendError>;

/// Takes the result of one request.
///
/// It may be completed on any thread, also inside [`Backend::submit`](crate::Backend::submit), and at any later time. If it
/// is dropped instead, the guest's request stays in flight. This is correct only while the daemon ends: the next daemon
/// submits the request again.
pub struct ReplyTo(Target);

enum Target {
    /// A part of a job of a device.
    Device { mailbox: Arc<Mailbox>, job: u64, part: Part },
    /// One half of a request that its backend carries out as two.
    Half(Arc<Mutex<Halves>>),
    /// A caller that is no device.
    Channel(Sender<RequestResult>),
}

struct Halves {
    left: u8,
    error: Option<BackendError>,
    whole: Option<ReplyTo>,
}

impl ReplyTo {
    pub(crate) fn device(mailbox: Arc<Mailbox>, job: u64, part: Part) -> Self {
        Self(Target::Device { mailbox, job, part })
    }

    /// Sends the result to a caller that is no device, such as a test. A receiver that is gone gets nothing.
    #[must_use]
    pub fn channel(sender: Sender<RequestResult>) -> Self {
        Self(Target::Channel(sender))
    }

    /// Two replies in place of this one, which is completed when both are: with the first error if there is one, and
    /// without bytes. For a change that the backend carries out in two parts.
    #[must_use]
    pub fn split(self) -> [Self; 2] {
        let halves = Arc::new(Mutex::new(Halves { left: 2, error: None, whole: Some(self) }));
        [Self(Target::Half(halves.clone())), Self(Target::Half(halves))]
    }

    /// Delivers the result.
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
                    && let Some(whole) = halves.whole.take()
                {
                    let error = halves.error.take();
                    drop(halves);
                    whole.complete(error.map_or_else(|| Ok(Bytes::new()), Err));
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
                write!(f, "half of {:?}", halves.whole)
            }
            Target::Channel(_) => f.write_str("channel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn two_halves_are_one_reply_with_the_first_error() {
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
}
