//! An image on its way into a volume: bounded memory, checked before its last bytes are handed on.

use axum::body::Body;
use bytes::Bytes;
use dyad_api::{ApiError, ImportReply};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::NodeHandle;

/// Bytes in flight between browser and core.
const WINDOW: usize = 1 << 20;

/// Beginnings of files that are not raw images, and what they are.
const NOT_RAW: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "a qcow2 image"),
    (b"KDMV", "a VMDK image"),
    (b"conectix", "a VHD image"),
    (b"vhdxfile", "a VHDX image"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"PK\x03\x04", "a zip archive"),
];

/// Writes `bytes` bytes of `body` into the volume and waits until they are durable.
///
/// If a checksum is expected, the end of the image is withheld until it has proven right: the core never confirms a
/// corrupt image.
pub(crate) async fn import(
    node: &NodeHandle,
    volume: &str,
    bytes: u64,
    sha256: Option<&str>,
    body: Body,
) -> Result<ImportReply, ApiError> {
    let expected = sha256.map(checksum).transpose()?;
    let document = node.document().await?;
    let Some(record) = document.volumes.get(volume) else {
        return Err(dyad_desired::Refusal::Unknown { kind: "volume", name: volume.to_owned() }.into());
    };
    if bytes == 0 || bytes > record.size {
        let sentence =
            format!("The image has {bytes} bytes and the volume {volume} has {}: it does not fit.", record.size);
        return Err(ApiError::new(422, "image-size", sentence));
    }
    let mut incoming = Incoming { body: body.into_data_stream(), first: None, hash: Sha256::new(), left: bytes };
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
    // What is wrong with the image explains why the core did not get all of it; not the other way round.
    match (fed, written) {
        (Ok(sha256), Ok(())) => Ok(ImportReply { bytes, sha256 }),
        (_, Err(error @ dyad_control::ClientError::Refused { .. })) if !short(&error) => Err(error.into()),
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error.into()),
    }
}

fn short(error: &dyad_control::ClientError) -> bool {
    matches!(error, dyad_control::ClientError::Refused { code, .. } if code == "short-image")
}

fn checksum(text: &str) -> Result<[u8; 32], ApiError> {
    let mut sum = [0; 32];
    hex::decode_to_slice(text, &mut sum)
        .map_err(|_| ApiError::new(422, "bad-checksum", "A SHA-256 is 64 hexadecimal digits."))?;
    Ok(sum)
}

struct Incoming {
    body: axum::body::BodyDataStream,
    /// What was read to look at the beginning.
    first: Option<Bytes>,
    hash: Sha256,
    left: u64,
}

impl Incoming {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            match self.body.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => return Some(chunk),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Refuses what is plainly not a raw image, before anything is written.
    async fn check_kind(&mut self) -> Result<(), ApiError> {
        let Some(first) = self.next().await else { return Ok(()) };
        let kind = NOT_RAW.iter().find(|(mark, _)| first.starts_with(mark));
        self.first = Some(first);
        match kind {
            None => Ok(()),
            Some((_, what)) => {
                let sentence = format!("The image is {what}: convert it to a raw image first; nothing was written.");
                Err(ApiError::new(422, "not-raw", sentence))
            }
        }
    }

    async fn feed(&mut self, sink: &mut DuplexStream, expected: Option<[u8; 32]>) -> Result<String, ApiError> {
        let cut = |_| ApiError::new(503, "core-cut", "The storage service stopped taking the image: send it again.");
        let total = self.left;
        let mut held: Option<Bytes> = None;
        while self.left > 0 {
            let Some(mut chunk) = self.next().await else {
                let sentence = format!(
                    "The image ended after {} of {total} bytes; the volume is not usable, send it again.",
                    total - self.left
                );
                return Err(ApiError::new(422, "short-image", sentence));
            };
            chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= chunk.len() as u64;
            self.hash.update(&chunk);
            // One chunk behind, so that the last one waits for the checksum.
            if let Some(before) = held.replace(chunk) {
                sink.write_all(&before).await.map_err(cut)?;
            }
        }
        let sum = std::mem::take(&mut self.hash).finalize();
        if expected.is_some_and(|expected| expected[..] != sum[..]) {
            let sentence =
                "The image is corrupt: its SHA-256 is not the expected one; the volume is not usable, send it again.";
            return Err(ApiError::new(422, "corrupt-image", sentence));
        }
        if let Some(last) = held {
            sink.write_all(&last).await.map_err(cut)?;
        }
        Ok(hex::encode(sum))
    }
}
