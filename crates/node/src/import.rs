//! An image on its way into a volume: bounded memory, checked before its last bytes are handed on.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use dyad_api::{ApiError, ErrorCode, ImportReply};
use dyad_control::{ClientError, RefusalCode};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::NodeHandle;

/// Bytes in flight between browser and core.
const WINDOW: usize = 1 << 20;

/// One who sends nothing for so long sends nothing more.
const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of the beginning that are looked at.
const HEAD: usize = 512;

/// What files that are not raw images have at this byte of their beginning, and what they are.
const NOT_RAW: &[(usize, &[u8], &str)] = &[
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

/// Why an image was not fed whole.
enum ImportError {
    /// Something is wrong with it: a word and a clause.
    Image(ErrorCode, String),
    /// The core takes no more.
    Cut,
}

/// Makes `bytes` bytes of `body` all that the volume holds and waits until they are durable.
///
/// If a checksum is expected, the end of the image is withheld until it has proven right: the core never confirms a
/// corrupt image, and drops it.
pub(crate) async fn import(
    node: &NodeHandle,
    volume: &str,
    bytes: u64,
    sha256: Option<&str>,
    body: Body,
) -> Result<ImportReply, ApiError> {
    let expected = sha256.map(checksum).transpose()?;
    if bytes == 0 {
        return Err(ApiError::new(ErrorCode::EmptyImage, "The image is empty: choose another file."));
    }
    let mut incoming = Incoming { body: body.into_data_stream(), head: Bytes::new(), hash: Sha256::new(), left: bytes };
    incoming.check_kind().await?;
    let (mut sink, mut source) = tokio::io::duplex(WINDOW);
    // Each side owns its end, so that the other one notices when it stops early.
    let writing = async move { node.core.import(volume, bytes, &mut source).await };
    let feeding = async move {
        let result = incoming.feed(&mut sink, expected).await;
        // Closing early tells the core that the rest never comes.
        drop(sink);
        result
    };
    let (written, fed) = tokio::join!(writing, feeding);
    let error = match (written, &fed) {
        (Ok(()), Ok(sha256)) => return Ok(ImportReply { bytes, sha256: sha256.clone() }),
        (Ok(()), Err(_)) => None,
        (Err(error), _) => Some(error),
    };
    match (fed, error) {
        (_, Some(ClientError::Refused(refusal))) if refusal.code != RefusalCode::ImportFailed => Err(refusal.into()),
        // What is wrong with the image explains why the core did not get all of it; not the other way round. Its end was
        // withheld, so it never takes the place of what was there.
        (Err(ImportError::Image(code, what)), _) => {
            Err(ApiError::new(code, format!("{what}: the volume holds what it held before.")))
        }
        (_, Some(told @ (ClientError::Refused(_) | ClientError::Unreachable { .. }))) => Err(told.into()),
        _ => {
            let sentence = "The storage service of this node restarted in the middle: the volume holds what it held \
                            before or the whole image, send it again.";
            Err(ApiError::new(ErrorCode::CoreCut, sentence))
        }
    }
}

fn checksum(text: &str) -> Result<[u8; 32], ApiError> {
    let mut sum = [0; 32];
    hex::decode_to_slice(text, &mut sum)
        .map_err(|_| ApiError::new(ErrorCode::BadChecksum, "A SHA-256 is 64 hexadecimal digits."))?;
    Ok(sum)
}

struct Incoming {
    body: axum::body::BodyDataStream,
    /// What was read to look at the beginning.
    head: Bytes,
    hash: Sha256,
    left: u64,
}

impl Incoming {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        loop {
            // A browser that is gone without a word would keep the volume from everyone else.
            match tokio::time::timeout(UPLOAD_IDLE_TIMEOUT, self.body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => {}
                Ok(Some(Ok(chunk))) => return Some(chunk),
                Ok(Some(Err(_)) | None) | Err(_) => return None,
            }
        }
    }

    /// Refuses what is plainly not a raw image, before anything is written.
    async fn check_kind(&mut self) -> Result<(), ApiError> {
        let mut head = Vec::new();
        while head.len() < HEAD
            && let Some(chunk) = self.next().await
        {
            head.extend_from_slice(&chunk);
        }
        let has = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
        if let Some((.., what)) = NOT_RAW.iter().find(|(at, mark, _)| has(*at, mark)) {
            let sentence = format!("The image is {what}: convert it to a raw image first; nothing was written.");
            return Err(ApiError::new(ErrorCode::NotRaw, sentence));
        }
        self.head = head.into();
        Ok(())
    }

    async fn feed(&mut self, sink: &mut DuplexStream, expected: Option<[u8; 32]>) -> Result<String, ImportError> {
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
            // One chunk behind, so that the last one waits for the checksum.
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
    async fn one_who_falls_silent_is_waited_for_no_more() {
        let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![1; 9])]);
        let body = Body::from_stream(pieces.chain(futures_util::stream::pending()));
        let mut incoming =
            Incoming { body: body.into_data_stream(), head: Bytes::new(), hash: Sha256::new(), left: 20 };
        let (mut sink, _source) = tokio::io::duplex(WINDOW);
        let Err(ImportError::Image(code, what)) = incoming.feed(&mut sink, None).await else { panic!("a whole image") };
        assert_eq!((code, what.as_str()), (ErrorCode::ShortImage, "The image ended after 9 of 20 bytes"));
    }
}
