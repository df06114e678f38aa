//! The trait that a volume implements to be served to clients.

use bytes::Bytes;

#[cfg(doc)]
use crate::BLOCK_BYTES;

/// One request to a [`Backend`]. Offsets and lengths are in bytes, multiples of [`BLOCK_BYTES`], inside the volume; no
/// length is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads `len` bytes, at most 1 MiB + 2 blocks. Completes with exactly `len` bytes.
    Read { offset: u64, len: u32 },
    /// Writes all of `data`, at most 1 MiB + 2 blocks. The bytes are a private copy: the guest cannot change them.
    Write { offset: u64, data: Bytes },
    /// Makes each write that completed before this request durable.
    Flush,
    /// Drops the content. Reading it afterwards gives zeros.
    Discard {
        offset: u64,
        /// At most 64 MiB.
        len: u64,
    },
    /// Writes zeros. It differs from [`Request::Discard`] only in the guest's purpose.
    WriteZeroes {
        offset: u64,
        /// At most 64 MiB.
        len: u64,
    },
}

/// Receives the result of one request: the bytes of a read, no bytes for each other request.
///
/// It may be called from any thread, also inside [`Backend::submit`], and at any later time. If it is dropped without a
/// call, the guest's request stays in flight. This is correct only while the daemon ends: the next daemon submits the
/// request again.
pub type Done = Box<dyn FnOnce(Result<Bytes, BackendError>) + Send>;

/// The failure of a request. The guest sees an I/O error, so a backend that may succeed later waits instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No replica could read or write the data.
    #[error("the volume could not serve the request: {0}")]
    Failed(String),
    /// The request does not lie inside the volume.
    #[error("the request lies outside of the volume; compare the volume's size with the guest's")]
    OutOfRange,
}

/// A volume that can be served.
pub trait Backend: Send + Sync + 'static {
    /// Starts one request and returns without waiting for it: the caller is the thread that serves the guest's rings.
    /// Requests may complete in any order.
    fn submit(&self, request: Request, done: Done);

    /// Size of the volume in bytes: a multiple of [`BLOCK_BYTES`], not 0, constant while a server runs.
    fn size(&self) -> u64;
}
