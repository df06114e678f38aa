//! Frames: the division of a byte stream into messages.
//!
//! ```text
//! offset size
//!      0    4  magic "DYAD"
//!      4    2  version of this header, 1          (all numbers little endian)
//!      6    2  kind: the type of the message, defined by the protocol on top
//!      8    4  length of the payload in bytes, at most 2 MiB
//!     12    4  CRC32C of bytes 0..12 and the payload
//!     16    …  payload, usually a postcard message
//! ```
//!
//! **Invariants**
//! * A reader allocates memory for a payload only after it has checked magic, version and length.
//! * [`FrameReader::next`] may be cancelled at any await without losing data.
//! * An error ends the stream: there is no resynchronisation.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Length of the header before the payload, in bytes.
pub const HEADER_BYTES: usize = 16;
/// Maximum length of a payload, in bytes.
pub const MAX_PAYLOAD: usize = 2 << 20;

const MAGIC: [u8; 4] = *b"DYAD";
const VERSION: u16 = 1;
/// A writer passes its buffer to the stream when the buffer has at least this many bytes.
const FLUSH_THRESHOLD_BYTES: usize = 256 << 10;
/// Minimum free space of the buffer for a read, in bytes.
const MIN_READ_BYTES: usize = 4 << 10;

/// The errors of reading or writing a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
    /// The stream ended inside a frame.
    #[error("the other side closed the connection in the middle of a message")]
    Truncated,
    /// Bytes in the place of a frame's magic number are another number.
    #[error("the other side does not speak this protocol; check the address and the port")]
    Magic,
    /// The header has an unknown version.
    #[error("the other side uses frame version {found}, this one knows {VERSION}; update the older side")]
    Version {
        /// The version in the header.
        found: u16,
    },
    /// The payload is longer than the limit of this reader or writer.
    #[error("a message of {length} bytes is longer than the {limit} allowed here")]
    TooLong {
        /// Length of the payload, in bytes.
        length: usize,
        /// The limit of this reader or writer, in bytes.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("a message was damaged in transit; check cables, network cards and memory")]
    Checksum,
    /// The payload cannot be decoded as, or encoded from, a message of the expected type.
    #[error("a message cannot be understood; update both sides to the same version")]
    Message(#[source] postcard::Error),
    /// A frame of this kind is not expected here.
    #[error("a message of kind {kind} is not expected here; update both sides to the same version")]
    Unexpected {
        /// The kind of the frame.
        kind: u16,
    },
}

/// One message: its kind and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// A number whose meaning the protocol above defines.
    pub kind: u16,
    /// The message's bytes. They share the reader's buffer without a copy.
    pub payload: Bytes,
}

impl Frame {
    /// Decodes the payload as a `T`.
    ///
    /// # Errors
    /// [`FrameError::Message`] if the payload is not a `T` or has bytes left over.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        from_payload(&self.payload)
    }

    /// Decodes the payload as a `T` if the frame has this kind.
    ///
    /// # Errors
    /// [`FrameError::Unexpected`] for another kind, otherwise as [`Self::message`].
    pub fn expect<T: DeserializeOwned>(&self, kind: u16) -> Result<T, FrameError> {
        if self.kind != kind {
            return Err(FrameError::Unexpected { kind: self.kind });
        }
        self.message()
    }

    /// Checks that the frame has this kind and no payload.
    ///
    /// # Errors
    /// [`FrameError::Unexpected`] for another kind, [`FrameError::Message`] for a payload.
    pub fn expect_empty(&self, kind: u16) -> Result<(), FrameError> {
        self.expect::<()>(kind)
    }
}

/// Encodes a message as postcard.
///
/// # Errors
/// [`FrameError::Message`] if `T` has no postcard form.
pub fn to_payload<T: Serialize>(message: &T) -> Result<Bytes, FrameError> {
    postcard::to_stdvec(message).map(Bytes::from).map_err(FrameError::Message)
}

/// Decodes a postcard message.
///
/// # Errors
/// [`FrameError::Message`] if the payload is not a `T` or has bytes left over.
pub fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(FrameError::Message(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(FrameError::Message(error)),
    }
}

/// CRC32C of the first 12 bytes of the header and of the payload.
fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), payload)
}

fn header(kind: u16, payload: &[u8]) -> Result<[u8; HEADER_BYTES], FrameError> {
    let too_long = || FrameError::TooLong { length: payload.len(), limit: MAX_PAYLOAD };
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    if payload.len() > MAX_PAYLOAD {
        return Err(too_long());
    }
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&kind.to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&header, payload);
    header[12..].copy_from_slice(&sum.to_le_bytes());
    Ok(header)
}

/// Removes the first frame from `buffer`, or returns the number of bytes that its header or payload still lacks.
fn split_frame(buffer: &mut BytesMut, limit: usize) -> Result<Result<Frame, usize>, FrameError> {
    let Some(&head) = buffer.first_chunk::<HEADER_BYTES>() else {
        // An incomplete header is checked as far as it goes, so that a foreign protocol is refused at once.
        let seen = buffer.len().min(MAGIC.len());
        return if buffer[..seen] == MAGIC[..seen] {
            Ok(Err(HEADER_BYTES - buffer.len()))
        } else {
            Err(FrameError::Magic)
        };
    };
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..4] != MAGIC {
        return Err(FrameError::Magic);
    }
    if short(4) != VERSION {
        return Err(FrameError::Version { found: short(4) });
    }
    let length = long(8) as usize;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(Err(HEADER_BYTES + length - buffer.len()));
    }
    let _ = buffer.split_to(HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    if checksum(&head, &payload) != long(12) {
        return Err(FrameError::Checksum);
    }
    Ok(Ok(Frame { kind: short(6), payload }))
}

/// Reads frames from a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// Maximum length of a payload, in bytes.
    limit: usize,
    /// Number of bytes received.
    received: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of frames with payloads up to [`MAX_PAYLOAD`].
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new(), limit: MAX_PAYLOAD, received: 0 }
    }

    /// Limits payloads to `bytes` from now on (never more than [`MAX_PAYLOAD`]), for peers that are not authenticated
    /// yet.
    pub fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes.min(MAX_PAYLOAD);
    }

    /// Number of bytes received so far. It grows while a long frame is being received, which shows that the path works.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next frame; `None` if the other side closed the stream between two frames. May be cancelled.
    ///
    /// # Errors
    /// Any [`FrameError`]; the stream cannot be used afterwards.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match split_frame(&mut self.buffer, self.limit)? {
                Ok(frame) => return Ok(Some(frame)),
                Err(missing) => self.buffer.reserve(missing.max(MIN_READ_BYTES)),
            }
            let count = self.stream.read_buf(&mut self.buffer).await.map_err(FrameError::Io)?;
            self.received += count as u64;
            if count == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// The next frame, where the protocol requires one.
    ///
    /// # Errors
    /// As [`Self::next`], and [`FrameError::Truncated`] if the other side closed the stream.
    pub async fn next_required(&mut self) -> Result<Frame, FrameError> {
        self.next().await?.ok_or(FrameError::Truncated)
    }
}

/// Writes frames to a byte stream, through a buffer.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Adds one frame to the buffer, which is sent by [`Self::flush`] or when it is full. Must not be cancelled.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] (nothing was added) or [`FrameError::Io`].
    pub async fn feed(&mut self, kind: u16, payload: &[u8]) -> Result<(), FrameError> {
        let header = header(kind, payload)?;
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        if self.buffer.len() >= FLUSH_THRESHOLD_BYTES { self.write_buffer().await } else { Ok(()) }
    }

    /// Sends the buffered frames. Must not be cancelled.
    ///
    /// # Errors
    /// [`FrameError::Io`] if the stream failed.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.write_buffer().await?;
        self.stream.flush().await.map_err(FrameError::Io)
    }

    /// Sends one frame with a payload of raw bytes. Must not be cancelled.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub async fn send_bytes(&mut self, kind: u16, payload: &[u8]) -> Result<(), FrameError> {
        self.feed(kind, payload).await?;
        self.flush().await
    }

    /// Sends one frame with a message as postcard. Must not be cancelled.
    ///
    /// # Errors
    /// As [`Self::feed`] and [`to_payload`].
    pub async fn send<T: Serialize>(&mut self, kind: u16, message: &T) -> Result<(), FrameError> {
        self.send_bytes(kind, &to_payload(message)?).await
    }

    /// Sends the buffered frames and closes the stream.
    ///
    /// # Errors
    /// [`FrameError::Io`] if the stream failed.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        self.stream.shutdown().await.map_err(FrameError::Io)
    }

    /// Writes the buffer to the stream and empties it.
    async fn write_buffer(&mut self) -> Result<(), FrameError> {
        let sent = self.stream.write_all(&self.buffer).await;
        self.buffer.clear();
        // The memory of one large frame must not stay allocated on an idle connection.
        self.buffer.shrink_to(FLUSH_THRESHOLD_BYTES);
        sent.map_err(FrameError::Io)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(kind: u16, payload: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&header(kind, payload).unwrap()[..]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Result<Frame, usize>, FrameError> {
        split_frame(&mut BytesMut::from(bytes), MAX_PAYLOAD)
    }

    #[test]
    fn the_header_has_the_bytes_of_docs_wire_md() {
        let bytes = encoded(0x0102, b"x");
        assert_eq!(&bytes[..12], b"DYAD\x01\x00\x02\x01\x01\x00\x00\x00");
        assert_eq!(bytes[12..16], crc32c::crc32c(b"DYAD\x01\x00\x02\x01\x01\x00\x00\x00x").to_le_bytes());
    }

    #[test]
    fn a_payload_beyond_the_limit_is_refused_before_it_is_read() {
        let bytes = encoded(1, &[0; 100]);
        let found = split_frame(&mut BytesMut::from(&bytes[..HEADER_BYTES]), 99);
        assert!(matches!(found, Err(FrameError::TooLong { length: 100, limit: 99 })));
        assert!(matches!(header(1, &vec![0; MAX_PAYLOAD + 1]), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn foreign_protocols_and_versions_are_refused_at_once() {
        assert!(matches!(decode(b"GE"), Err(FrameError::Magic)));
        let mut bytes = encoded(1, b"");
        bytes[4] = 9;
        assert!(matches!(decode(&bytes), Err(FrameError::Version { found: 9 })));
    }

    #[test]
    fn a_message_with_bytes_left_over_is_an_error() {
        assert!(from_payload::<u8>(&[1, 2]).is_err());
        assert_eq!(from_payload::<u8>(&[1]).unwrap(), 1);
    }

    #[tokio::test]
    async fn frames_arrive_whole_through_short_and_cancelled_reads() {
        let (near, far) = tokio::io::duplex(7);
        let mut reader = FrameReader::new(far);
        let payload = vec![5; 300_000];
        let sent = payload.clone();
        let writer = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            writer.feed(1, b"first").await.unwrap();
            writer.send_bytes(2, &sent).await.unwrap();
            writer.close().await.unwrap();
        });
        let mut frames = Vec::new();
        loop {
            // The branch that is always ready cancels the read repeatedly.
            tokio::select! {
                biased;
                frame = reader.next() => match frame.unwrap() {
                    Some(frame) => frames.push(frame),
                    None => break,
                },
                () = tokio::task::yield_now() => {}
            }
        }
        writer.await.unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].kind, &frames[0].payload[..]), (1, &b"first"[..]));
        assert_eq!((frames[1].kind, &frames[1].payload[..]), (2, &payload[..]));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let bytes = encoded(1, b"payload");
        let mut reader = FrameReader::new(&bytes[..bytes.len() - 1]);
        assert!(matches!(reader.next().await, Err(FrameError::Truncated)));
    }

    proptest! {
        #[test]
        fn a_decoded_frame_equals_the_encoded_one(
            kind: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let frame = decode(&encoded(kind, &payload)).unwrap().unwrap();
            prop_assert_eq!(frame, Frame { kind, payload: payload.into() });
        }

        #[test]
        fn random_bytes_are_no_frame_and_no_panic(noise in proptest::collection::vec(any::<u8>(), 4..400)) {
            prop_assert!(!matches!(decode(&noise), Ok(Ok(_))));
        }

        #[test]
        fn random_bytes_behind_a_valid_magic_are_no_frame_and_no_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = b"DYAD\x01\x00".to_vec();
            bytes.extend(tail);
            prop_assert!(!matches!(decode(&bytes), Ok(Ok(_))));
        }

        #[test]
        fn a_flipped_bit_is_detected(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            at: usize,
            bit in 0..8u32,
        ) {
            let mut bytes = encoded(3, &payload);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(decode(&bytes), Ok(Ok(_))));
        }
    }
}
