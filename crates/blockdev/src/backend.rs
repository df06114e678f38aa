//! The trait that a volume implements to be served to clients.

use bytes::Bytes;

use crate::reply::ReplyTo;

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

/// A volume that can be served.
pub trait Backend: Send + Sync + 'static {
    /// Starts one request and returns without waiting for it: the caller is the thread that serves the guest's rings.
    /// Requests may complete in any order.
    fn submit(&self, request: Request, reply_to: ReplyTo);

    /// Size of the volume in bytes: a multiple of [`BLOCK_BYTES`], not 0, constant while a server runs.
    fn size(&self) -> u64;
}
