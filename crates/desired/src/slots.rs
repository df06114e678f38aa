//! The document as bytes: two slots of 1 MiB in volume 0, written alternately. See `docs/formats.md`.
//!
//! A generation is written to slot `generation mod 2`, so a torn write damages only the newest document and the
//! previous one remains. Layout of a slot, little-endian: magic 8 bytes, version u32, CRC32C u32 from the end of this
//! field to the end of the JSON, generation u64, length u64, then `length` bytes of JSON; the rest of the slot is
//! undefined.

use crate::{Document, Refusal, limits};

/// Size of one slot, in bytes. Volume 0 has two.
pub const SLOT_BYTES: usize = 1 << 20;
/// Size of the header in bytes: magic, version, checksum, generation and length. The JSON text follows.
pub const HEADER_BYTES: usize = 32;
/// Unit of a write, in bytes: an encoded document is padded with zeros to whole blocks.
pub use dyad_types::BLOCK;

const MAGIC: [u8; 8] = *b"DYADDOC\0";
const VERSION: u32 = 1;

/// The bytes of one document, and their place in volume 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSlot {
    /// Byte offset in volume 0: 0 or [`SLOT_BYTES`].
    pub offset: u64,
    /// The bytes to write: whole blocks, at most [`SLOT_BYTES`] bytes.
    pub bytes: Vec<u8>,
}

/// The result of decoding one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotContent {
    /// Never written: its header is all zeros.
    Empty,
    /// A document whose checksum, version and invariants are right.
    Good(Box<Document>),
    /// The slot is damaged or of a newer version; the text is a sentence with the reason.
    Bad(String),
}

/// The document chosen from both slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentChoice {
    /// Neither slot was ever written: the pair has no document yet.
    Fresh,
    /// The newest good document, and a sentence with the defect of the other slot, if it is damaged.
    Current(Box<Document>, Option<String>),
    /// At least one slot was written and neither is usable; the text is a sentence with the reason.
    Lost(String),
}

/// Encodes a document for the slot of its generation.
///
/// # Errors
/// [`Refusal::TooLarge`] if the text does not fit into a slot.
pub fn encode(document: &Document) -> Result<EncodedSlot, Refusal> {
    // Cannot fail: a document consists of maps, numbers and texts.
    let text = serde_json::to_vec(document).unwrap_or_default();
    if text.is_empty() || HEADER_BYTES + text.len() > SLOT_BYTES {
        return Err(Refusal::TooLarge { bytes: text.len() });
    }
    let mut bytes = Vec::with_capacity((HEADER_BYTES + text.len()).next_multiple_of(BLOCK));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&document.generation.to_le_bytes());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    let sum = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(EncodedSlot { offset: (document.generation % 2) * SLOT_BYTES as u64, bytes })
}

/// Decodes one slot. Bytes of any content and length give a result and no panic, because a disk may hold anything.
#[must_use]
pub fn decode(slot: &[u8]) -> SlotContent {
    let Some(header) = slot.get(..HEADER_BYTES) else {
        return SlotContent::Bad("The slot is shorter than its header.".into());
    };
    if header.iter().all(|b| *b == 0) {
        return SlotContent::Empty;
    }
    if header[..8] != MAGIC {
        return SlotContent::Bad("The slot does not begin with the magic number of a document.".into());
    }
    let version = u32::from_le_bytes(field(header, 8));
    if version != VERSION {
        return SlotContent::Bad(format!("The slot has version {version}, and this program knows version {VERSION}."));
    }
    let sum = u32::from_le_bytes(field(header, 12));
    let generation = u64::from_le_bytes(field(header, 16));
    let length = u64::from_le_bytes(field(header, 24));
    let end = usize::try_from(length).ok().and_then(|l| l.checked_add(HEADER_BYTES)).filter(|end| *end <= SLOT_BYTES);
    let Some(covered) = end.and_then(|end| slot.get(16..end)) else {
        return SlotContent::Bad(format!("The slot claims {length} bytes, more than it can hold."));
    };
    if crc32c::crc32c(covered) != sum {
        return SlotContent::Bad(
            "The checksum of the slot is wrong: the write was torn or the disk damaged it.".into(),
        );
    }
    match serde_json::from_slice::<Document>(&covered[16..]) {
        Err(_) => SlotContent::Bad("The text of the slot is not a document.".into()),
        Ok(document) if document.format > limits::FORMAT_VERSION => {
            SlotContent::Bad(format!("The document has format {}, newer than this program knows.", document.format))
        }
        Ok(document) if document.generation != generation => {
            SlotContent::Bad("The slot and its document disagree on the generation.".into())
        }
        Ok(document) => match document.check() {
            Ok(()) => SlotContent::Good(Box::new(document)),
            Err(refusal) => SlotContent::Bad(format!("The document violates an invariant: {refusal}")),
        },
    }
}

/// The newest good document of the two slots.
#[must_use]
pub fn choose(first: &[u8], second: &[u8]) -> DocumentChoice {
    match (decode(first), decode(second)) {
        (SlotContent::Empty, SlotContent::Empty) => DocumentChoice::Fresh,
        (SlotContent::Good(a), SlotContent::Good(b)) => {
            DocumentChoice::Current(if a.generation >= b.generation { a } else { b }, None)
        }
        (SlotContent::Good(document), other) | (other, SlotContent::Good(document)) => {
            DocumentChoice::Current(document, if let SlotContent::Bad(why) = other { Some(why) } else { None })
        }
        (SlotContent::Bad(why), _) | (_, SlotContent::Bad(why)) => DocumentChoice::Lost(why),
    }
}

fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
