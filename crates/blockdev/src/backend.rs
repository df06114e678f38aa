//! What stands behind a device: the trait a volume implements.

use bytes::Bytes;

#[cfg(doc)]
use crate::BLOCK;

/// One request to a [`Backend`]. Offsets and lengths are in bytes, multiples of [`BLOCK`], inside the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Read `len` bytes, at most 1 MiB + 2 blocks. Completes with exactly `len` bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Number of bytes, not 0.
        len: u32,
    },
    /// Write all of `data`, at most 1 MiB + 2 blocks. The bytes are private: no guest can change them any more.
    Write {
        /// First byte.
        offset: u64,
        /// What to write, not empty.
        data: Bytes,
    },
    /// Make every write that completed before this request durable.
    Flush,
    /// The content is not needed any more. Reading it afterwards gives zeros.
    Discard {
        /// First byte.
        offset: u64,
        /// Number of bytes, at most 64 MiB, not 0.
        len: u64,
    },
    /// The content becomes zeros. Differs from [`Request::Discard`] in the guest's intention only.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Number of bytes, at most 64 MiB, not 0.
        len: u64,
    },
}

/// Takes the outcome of one request: the bytes read, or empty for everything else.
///
/// It may be called from any thread, also inside [`Backend::submit`], and at any later time. Dropping it
/// uncalled leaves the guest's request in flight for good: right for a daemon that is going down (the next
/// one submits the request again), wrong for anything else.
pub type Done = Box<dyn FnOnce(Result<Bytes, BackendError>) + Send>;

/// Why a request failed. A guest sees an I/O error, so a backend that can wait waits instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The data cannot be read or written, on no replica.
    #[error("the volume could not serve the request: {0}")]
    Failed(String),
    /// The request does not lie inside the volume.
    #[error("the request lies outside of the volume; compare the volume's size with the guest's")]
    OutOfRange,
}

/// A volume as the guest-facing side sees it.
pub trait Backend: Send + Sync + 'static {
    /// Start one request and return soon: this runs on the thread that serves the guest's rings.
    /// Requests may complete in any order.
    fn submit(&self, request: Request, done: Done);

    /// Size of the volume in bytes, a multiple of [`BLOCK`], not 0. Constant while a server runs.
    fn size(&self) -> u64;
}
