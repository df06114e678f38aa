//! [`Backend`]: the trait that a volume implements, so that it can be served to clients.

use bytes::Bytes;

use crate::reply::ReplyTo;

#[cfg(doc)]
use crate::BLOCK_BYTES;

/// One request to a [`Backend`]. Offsets and lengths are in bytes, are multiples of [`BLOCK_BYTES`], and lie inside the
/// volume. No length is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads `len` bytes, at most 1 MiB. The reply must have exactly `len` bytes.
    Read { offset: u64, len: u32 },
    /// Writes all of `data`, at most 1 MiB. The bytes are a private copy: the guest cannot change them.
    Write { offset: u64, data: Bytes },
    /// Makes all changes durable that completed before this request was submitted.
    Flush,
    /// Discards the content: the range reads as zeros afterwards.
    Discard {
        offset: u64,
        /// At most 64 MiB.
        len: u64,
    },
    /// Writes zeros. The result is that of [`Request::Discard`]; a backend may keep the space allocated.
    WriteZeroes {
        offset: u64,
        /// At most 64 MiB.
        len: u64,
    },
}

/// A volume that can be served to a client.
pub trait Backend: Send + Sync + 'static {
    /// Starts one request, and returns without waiting for its result: the caller is the thread that serves the guest's
    /// rings. Requests may complete in any order.
    fn submit(&self, request: Request, reply_to: ReplyTo);

    /// Size of the volume in bytes: a multiple of [`BLOCK_BYTES`], not 0, constant while a server runs.
    fn size(&self) -> u64;
}
