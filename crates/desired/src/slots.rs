//! The document as bytes: two slots of 1 MiB in volume 0, written alternately. See `docs/formats.md`.
//!
//! A generation is written to slot `generation mod 2`, so a torn write damages only the newest document and the
//! previous one remains. Layout of a slot, little-endian: magic 8 bytes, version u32, CRC32C u32 of everything after
//! this field, generation u64, length u64, then `length` bytes of JSON; the rest of the slot is undefined.

use crate::{Document, Refusal, limits};

/// Size of one slot, in bytes. Volume 0 has two.
pub const SLOT: usize = 1 << 20;
/// Bytes before the JSON text.
pub const HEADER: usize = 32;
/// A write is padded with zeros to whole blocks.
pub use dyad_types::BLOCK;

const MAGIC: [u8; 8] = *b"DYADDOC\0";
const VERSION: u32 = 1;

/// One encoded generation and where to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Byte offset in volume 0: 0 or [`SLOT`].
    pub offset: u64,
    /// The bytes to write: whole blocks, at most [`SLOT`] bytes.
    pub bytes: Vec<u8>,
}

/// The content of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// Never written: only zeros.
    Empty,
    /// A document that passed all checks.
    Good(Box<Document>),
    /// Not a complete document of a known version; the text is a sentence with the reason.
    Bad(String),
}

/// The document chosen from both slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentChoice {
    /// Neither slot was ever written: the pair has no document yet.
    Fresh,
    /// The newest good document, and what is wrong with the other slot, if anything.
    Current(Box<Document>, Option<String>),
    /// A slot was written and none is usable; the text is a sentence with the reason.
    Lost(String),
}

/// Encodes a document for its slot.
///
/// # Errors
/// [`Refusal::TooLarge`] if the text does not fit into a slot.
pub fn encode(document: &Document) -> Result<Encoded, Refusal> {
    // Cannot fail: a document consists of maps, numbers and texts.
    let text = serde_json::to_vec(document).unwrap_or_default();
    if text.is_empty() || HEADER + text.len() > SLOT {
        return Err(Refusal::TooLarge { bytes: text.len() });
    }
    let mut bytes = Vec::with_capacity((HEADER + text.len()).next_multiple_of(BLOCK));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&document.generation.to_le_bytes());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    let sum = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(Encoded { offset: (document.generation % 2) * SLOT as u64, bytes })
}

/// Decodes one slot. Never panics, for any bytes.
#[must_use]
pub fn decode(slot: &[u8]) -> Slot {
    let Some(header) = slot.get(..HEADER) else {
        return Slot::Bad("The slot is shorter than its header.".into());
    };
    if header.iter().all(|b| *b == 0) {
        return Slot::Empty;
    }
    if header[..8] != MAGIC {
        return Slot::Bad("The slot does not begin with the magic number of a document.".into());
    }
    let version = u32::from_le_bytes(field(header, 8));
    if version != VERSION {
        return Slot::Bad(format!("The slot has version {version}, and this program knows version {VERSION}."));
    }
    let sum = u32::from_le_bytes(field(header, 12));
    let generation = u64::from_le_bytes(field(header, 16));
    let length = u64::from_le_bytes(field(header, 24));
    let end = usize::try_from(length).ok().and_then(|l| l.checked_add(HEADER)).filter(|end| *end <= SLOT);
    let Some(covered) = end.and_then(|end| slot.get(16..end)) else {
        return Slot::Bad(format!("The slot claims {length} bytes, more than it can hold."));
    };
    if crc32c::crc32c(covered) != sum {
        return Slot::Bad("The checksum of the slot is wrong: the write was torn or the disk damaged it.".into());
    }
    match serde_json::from_slice::<Document>(&covered[16..]) {
        Err(_) => Slot::Bad("The text of the slot is not a document.".into()),
        Ok(document) if document.format > limits::FORMAT => {
            Slot::Bad(format!("The document has format {}, newer than this program knows.", document.format))
        }
        Ok(document) if document.generation != generation => {
            Slot::Bad("The slot and its document disagree on the generation.".into())
        }
        Ok(document) => match document.check() {
            Ok(()) => Slot::Good(Box::new(document)),
            Err(refusal) => Slot::Bad(format!("The document violates an invariant: {refusal}")),
        },
    }
}

/// The newest good document of the two slots.
#[must_use]
pub fn choose(first: &[u8], second: &[u8]) -> DocumentChoice {
    match (decode(first), decode(second)) {
        (Slot::Empty, Slot::Empty) => DocumentChoice::Fresh,
        (Slot::Good(a), Slot::Good(b)) => {
            DocumentChoice::Current(if a.generation >= b.generation { a } else { b }, None)
        }
        (Slot::Good(document), other) | (other, Slot::Good(document)) => {
            DocumentChoice::Current(document, if let Slot::Bad(why) = other { Some(why) } else { None })
        }
        (Slot::Bad(why), _) | (_, Slot::Bad(why)) => DocumentChoice::Lost(why),
    }
}

fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
