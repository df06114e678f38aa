//! The upload of an image into a volume, with bounded memory. The checksum is verified before the last chunk is sent to the
//! core.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use dyad_api::{ApiError, ErrorCode, ImportReply};
use dyad_control::{ClientError, RefusalCode};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::NodeHandle;

/// Size in bytes of the buffer between client and core. It bounds the memory of this process for one upload.
const PIPE_BYTES: usize = 1 << 20;

/// Idle timeout of an upload: a client that sends no byte for this time is given up.
const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes at the beginning of an image in which its format is recognised: the last magic number begins at byte 257.
const HEAD_BYTES: usize = 512;

/// Magic numbers of files that are not raw images: offset in bytes, magic number, name of the format for the refusal.
const OTHER_FORMATS: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"QED\0", "a QED image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image"),
    (0, b"conectix", "a VHD image"),
    (0, b"vhdxfile", "a VHDX image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive, as an OVA file is"),
];

/// The reason why an image was not sent to the core completely.
enum ImportError {
    /// The image is too short or corrupt: code and clause of the refusal.
    Image(ErrorCode, String),
    /// The core has stopped reading; its reply says why.
    Cut,
}

/// Replaces the content of a volume by the first `bytes` bytes of `body`, and waits until they are durable.
///
/// The last chunk of the image is sent only after the checksum was verified. The core drops an incomplete image, so an image
/// with a wrong checksum never replaces the old content.
pub(crate) async fn import(
    node: &NodeHandle,
    volume: &str,
    bytes: u64,
    sha256: Option<&str>,
    body: Body,
) -> Result<ImportReply, ApiError> {
    let expected = sha256.map(parse_checksum).transpose()?;
    if bytes == 0 {
        return Err(ApiError::new(ErrorCode::EmptyImage, "The image is empty: choose another file."));
    }
    let mut upload =
        ImageUpload { body: body.into_data_stream(), head: Bytes::new(), hash: Sha256::new(), left: bytes };
    upload.refuse_other_formats().await?;
    let (mut sink, mut source) = tokio::io::duplex(PIPE_BYTES);
    // Each future owns its end of the pipe, so that the other future sees its end when it stops early.
    let writing = async move { node.core.import(volume, bytes, &mut source).await };
    let sending = async move {
        let result = upload.send(&mut sink, expected).await;
        // The end of the pipe before the announced length tells the core that the image is incomplete.
        drop(sink);
        result
    };
    let (written, sent) = tokio::join!(writing, sending);
    let error = match (written, &sent) {
        (Ok(()), Ok(sha256)) => return Ok(ImportReply { bytes, sha256: sha256.clone() }),
        (Ok(()), Err(_)) => None,
        (Err(error), _) => Some(error),
    };
    match (sent, error) {
        (_, Some(ClientError::Refused(refusal))) if refusal.code != RefusalCode::ImportFailed => Err(refusal.into()),
        // The error of the image is the cause; the core's refusal of the incomplete image follows from it.
        (Err(ImportError::Image(code, what)), _) => {
            Err(ApiError::new(code, format!("{what}: the volume holds what it held before.")))
        }
        (_, Some(error @ (ClientError::Refused(_) | ClientError::Unreachable { .. }))) => Err(error.into()),
        _ => {
            let sentence = "The storage service of this node restarted before it answered: the volume holds either its \
                            old content or the whole image; send the image again.";
            Err(ApiError::new(ErrorCode::CoreCut, sentence))
        }
    }
}

fn parse_checksum(text: &str) -> Result<[u8; 32], ApiError> {
    let mut sum = [0; 32];
    hex::decode_to_slice(text, &mut sum)
        .map_err(|_| ApiError::new(ErrorCode::BadChecksum, "A SHA-256 is 64 hexadecimal digits."))?;
    Ok(sum)
}

/// An image that a client sends.
struct ImageUpload {
    body: axum::body::BodyDataStream,
    /// Bytes that `refuse_other_formats` has read and that are not yet sent to the core.
    head: Bytes,
    hash: Sha256,
    /// Bytes of the announced length that have not been read yet.
    left: u64,
}

impl ImageUpload {
    /// The next chunk; `None` if the body has ended or failed, or after [`UPLOAD_IDLE_TIMEOUT`].
    async fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        loop {
            // A client that has vanished without closing its connection would hold the import in the volume for ever.
            match tokio::time::timeout(UPLOAD_IDLE_TIMEOUT, self.body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => {}
                Ok(Some(Ok(chunk))) => return Some(chunk),
                Ok(Some(Err(_)) | None) | Err(_) => return None,
            }
        }
    }

    /// Refuses an image in a format of [`OTHER_FORMATS`], before a byte is sent to the core.
    async fn refuse_other_formats(&mut self) -> Result<(), ApiError> {
        let mut head = Vec::new();
        while head.len() < HEAD_BYTES
            && let Some(chunk) = self.next().await
        {
            head.extend_from_slice(&chunk);
        }
        let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        if let Some((.., what)) = OTHER_FORMATS.iter().find(|(at, magic, _)| has(*at, magic)) {
            let sentence = format!("The image is {what}: convert it to a raw image first; nothing was written.");
            return Err(ApiError::new(ErrorCode::NotRaw, sentence));
        }
        self.head = head.into();
        Ok(())
    }

    /// Sends the image to the core through the pipe. Returns its SHA-256 in hexadecimal.
    async fn send(&mut self, sink: &mut DuplexStream, expected: Option<[u8; 32]>) -> Result<String, ImportError> {
        let total = self.left;
        let mut held: Option<Bytes> = None;
        while self.left > 0 {
            let Some(mut chunk) = self.next().await else {
                let what = format!("The image ended after {} of {total} bytes", total - self.left);
                return Err(ImportError::Image(ErrorCode::ShortImage, what));
            };
            chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= chunk.len() as u64;
            self.hash.update(&chunk);
            // The newest chunk is held back, so that the last one is sent only after the checksum was verified.
            if let Some(before) = held.replace(chunk) {
                sink.write_all(&before).await.map_err(|_| ImportError::Cut)?;
            }
        }
        let sum = std::mem::take(&mut self.hash).finalize();
        if expected.is_some_and(|expected| expected[..] != sum[..]) {
            let what = "The image is corrupt, its SHA-256 is not the expected one";
            return Err(ImportError::Image(ErrorCode::CorruptImage, what.into()));
        }
        if let Some(last) = held {
            sink.write_all(&last).await.map_err(|_| ImportError::Cut)?;
        }
        Ok(hex::encode(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_without_bytes_for_the_idle_timeout_ends() {
        let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![1; 9])]);
        let body = Body::from_stream(pieces.chain(futures_util::stream::pending()));
        let mut upload =
            ImageUpload { body: body.into_data_stream(), head: Bytes::new(), hash: Sha256::new(), left: 20 };
        let (mut sink, _source) = tokio::io::duplex(PIPE_BYTES);
        let Err(ImportError::Image(code, what)) = upload.send(&mut sink, None).await else { panic!("a whole image") };
        assert_eq!((code, what.as_str()), (ErrorCode::ShortImage, "The image ended after 9 of 20 bytes"));
    }
}
