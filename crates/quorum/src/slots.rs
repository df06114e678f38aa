//! Where the record of a node lives: fixed 4096-byte slots, two slots in each of two places.
//!
//! Generation g is written to slot g mod 2: first in place 0, synced, then in place 1, synced, and only then it
//! counts as durable. So at every moment three of the four copies are at rest. On reading:
//!
//! * The newest generation that any copy holds is the record.
//! * Its successor would lie in the other slot. If *no* copy of that slot is whole, the record may have been
//!   replaced by something that was lost: amnesia, and nothing older is ever used.
//! * One whole copy of that slot is enough: had the successor become durable, both copies would hold it.
//!
//! Format, all numbers little-endian; the record's bytes are described in `docs/quorum.md`:
//!
//! ```text
//! 0     8  magic "DYADREG1"
//! 8     4  version, 1
//! 12    4  bytes of the record, 712
//! 16    8  generation, from 1
//! 24   16  pair
//! 40    1  seat: 0 A, 1 B
//! 41    7  zero
//! 48  712  record
//! 760      zero
//! 4088  8  CRC-64/XZ of bytes 0..4088
//! ```

use crate::codec::{RECORD_BYTES, crc64, put_record, take_record};
use crate::types::{NodeId, Record};

/// Bytes of one slot; a slot is written and read as a whole.
pub const SLOT_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"DYADREG1";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
const CRC_AT: usize = SLOT_BYTES - 8;

/// Whose register it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pair.
    pub pair: u128,
    /// The node.
    pub node: NodeId,
}

/// What the four copies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest durable record and its generation; the next write carries the next generation.
    Record {
        /// Its generation.
        generation: u64,
        /// The record.
        record: Box<Record>,
    },
    /// Nothing was ever written: all copies are zero.
    Fresh,
    /// What was promised is lost. The store must become a new, non-voting incarnation.
    Amnesia,
    /// The register belongs to another pair or node.
    Foreign(Owner),
    /// Written by a newer version of this program; it is not downgraded silently.
    UnknownVersion(u32),
}

/// The slot a generation is written to, in each place.
pub fn slot_of(generation: u64) -> usize {
    (generation % 2) as usize
}

/// The bytes of one slot.
pub fn encode(owner: Owner, generation: u64, record: &Record) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((RECORD_BYTES as u32).to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(owner.pair.to_le_bytes());
    bytes.extend([owner.node as u8, 0, 0, 0, 0, 0, 0, 0]);
    put_record(record, &mut bytes);
    bytes.resize(CRC_AT, 0);
    let crc = crc64(&bytes);
    bytes.extend(crc.to_le_bytes());
    let mut slot = [0; SLOT_BYTES];
    slot.copy_from_slice(&bytes);
    slot
}

/// What one slot holds.
enum Slot {
    Blank,
    Torn,
    Newer(u32),
    Whole { owner: Owner, generation: u64, record: Box<Record> },
}

fn decode(bytes: &[u8]) -> Slot {
    if bytes.len() != SLOT_BYTES {
        return Slot::Torn;
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Blank;
    }
    let crc = u64::from_le_bytes(field(bytes, CRC_AT));
    if bytes[..8] != MAGIC[..] || crc != crc64(&bytes[..CRC_AT]) {
        return Slot::Torn;
    }
    let version = u32::from_le_bytes(field(bytes, 8));
    if version != VERSION {
        return Slot::Newer(version);
    }
    let generation = u64::from_le_bytes(field(bytes, 16));
    let node = match bytes[40] {
        0 => NodeId::A,
        1 => NodeId::B,
        _ => return Slot::Torn,
    };
    let owner = Owner { pair: u128::from_le_bytes(field(bytes, 24)), node };
    let length = u32::from_le_bytes(field(bytes, 12));
    match take_record(&bytes[HEAD_BYTES..HEAD_BYTES + RECORD_BYTES]) {
        Some(record) if length as usize == RECORD_BYTES && generation > 0 => {
            Slot::Whole { owner, generation, record: Box::new(record) }
        }
        _ => Slot::Torn,
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// Chooses among the copies, `places[place][slot]`. A copy that cannot be read is given as an empty slice.
pub fn choose(owner: Owner, places: [[&[u8]; 2]; 2]) -> Choice {
    let mut newest: Option<(u64, Box<Record>)> = None;
    let mut generations: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    let mut blanks = [0; 2];
    for place in places {
        for (index, bytes) in place.into_iter().enumerate() {
            match decode(bytes) {
                Slot::Blank => blanks[index] += 1,
                Slot::Torn => {}
                Slot::Newer(version) => return Choice::UnknownVersion(version),
                Slot::Whole { owner: found, .. } if found != owner => return Choice::Foreign(found),
                Slot::Whole { generation, record, .. } => {
                    if slot_of(generation) != index {
                        continue;
                    }
                    generations[index].push(generation);
                    if newest.as_ref().is_none_or(|(newest, _)| generation > *newest) {
                        newest = Some((generation, record));
                    }
                }
            }
        }
    }
    let Some((generation, record)) = newest else {
        return if blanks == [2, 2] { Choice::Fresh } else { Choice::Amnesia };
    };
    // The other slot holds the predecessor at least once, unless a lost successor wiped it out.
    let other = slot_of(generation + 1);
    if generations[other].contains(&(generation - 1)) || (generation == 1 && blanks[other] > 0) {
        Choice::Record { generation, record }
    } else {
        Choice::Amnesia
    }
}
