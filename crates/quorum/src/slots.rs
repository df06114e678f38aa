//! The register of a node on disk: fixed 4096-byte slots, two slots in each of two places.
//!
//! Generation g is written to slot g mod 2: first in place 0, synced, then in place 1, synced; then it counts as durable.
//! So at any time at most one of the four copies is being written. On reading:
//!
//! * The newest generation that any copy holds is the record.
//! * Its successor would be in the other slot. If *no* copy of that slot is whole, a durable successor may have been lost:
//!   amnesia. An older record is never used.
//! * One whole copy of the predecessor in that slot is enough: had the successor become durable, both copies would hold it.
//!
//! Format, all numbers little-endian; the record's bytes are described in `docs/quorum.md`:
//!
//! ```text
//! 0     8  magic "DYADREG1"
//! 8     4  version, 1
//! 12    4  bytes of the record, 712
//! 16    8  generation, from 1
//! 24   16  pair
//! 40    1  node: 0 A, 1 B
//! 41    7  zero
//! 48  712  record
//! 760      zero
//! 4088  8  CRC-64/XZ of bytes 0..4088
//! ```

use crate::codec::{RECORD_BYTES, crc64, put_record, take_record};
use crate::types::Record;
use dyad_types::NodeId;

/// Bytes of one slot; a slot is written and read as a whole.
pub const SLOT_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"DYADREG1";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
const CRC_AT: usize = SLOT_BYTES - 8;

/// Identifies a register: it belongs to one node of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterId {
    pub pair: u128,
    pub node: NodeId,
}

/// What the four copies show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterChoice {
    /// The newest durable record and its generation; the next write carries the next generation.
    Record { generation: u64, record: Box<Record> },
    /// Nothing was ever written: all copies are zero.
    Fresh,
    /// A durable record was lost, and with it promises. The store must become a new incarnation, without a vote.
    Amnesia,
    /// The register belongs to another pair or node.
    Foreign(RegisterId),
    /// Written by another version of the format. It is not overwritten.
    UnknownVersion(u32),
}

/// The slot a generation is written to, in each place.
pub fn slot_of(generation: u64) -> usize {
    (generation % 2) as usize
}

/// Header, record, padding with zeros, and a CRC at the end.
pub fn encode(id: RegisterId, generation: u64, record: &Record) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((RECORD_BYTES as u32).to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(id.pair.to_le_bytes());
    bytes.extend([id.node as u8, 0, 0, 0, 0, 0, 0, 0]);
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
    Whole { id: RegisterId, generation: u64, record: Box<Record> },
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
    let id = RegisterId { pair: u128::from_le_bytes(field(bytes, 24)), node };
    let length = u32::from_le_bytes(field(bytes, 12));
    match take_record(&bytes[HEAD_BYTES..HEAD_BYTES + RECORD_BYTES]) {
        Some(record) if length as usize == RECORD_BYTES && generation > 0 => {
            Slot::Whole { id, generation, record: Box::new(record) }
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
pub fn choose(id: RegisterId, places: [[&[u8]; 2]; 2]) -> RegisterChoice {
    let mut newest: Option<(u64, Box<Record>)> = None;
    let mut generations: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    let mut blanks = [0; 2];
    for place in places {
        for (index, bytes) in place.into_iter().enumerate() {
            match decode(bytes) {
                Slot::Blank => blanks[index] += 1,
                Slot::Torn => {}
                Slot::Newer(version) => return RegisterChoice::UnknownVersion(version),
                Slot::Whole { id: found, .. } if found != id => return RegisterChoice::Foreign(found),
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
        return if blanks == [2, 2] { RegisterChoice::Fresh } else { RegisterChoice::Amnesia };
    };
    // The other slot holds the predecessor at least once, unless a successor that was lost overwrote it.
    let other = slot_of(generation + 1);
    if generations[other].contains(&(generation - 1)) || (generation == 1 && blanks[other] > 0) {
        RegisterChoice::Record { generation, record }
    } else {
        RegisterChoice::Amnesia
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ballot, Config, Exception};
    use dyad_testkit::Prng;
    use dyad_types::{Epoch, VolumeId};

    const ID: RegisterId = RegisterId { pair: 5, node: NodeId::B };
    const BLANK: [u8; SLOT_BYTES] = [0; SLOT_BYTES];

    /// Two places of two slots, written the way the format demands.
    #[derive(Clone)]
    struct Disk([[Vec<u8>; 2]; 2]);

    impl Disk {
        fn blank() -> Disk {
            Disk(std::array::from_fn(|_| std::array::from_fn(|_| BLANK.to_vec())))
        }

        fn write(&mut self, place: usize, generation: u64) {
            self.0[place][slot_of(generation)] = encode(ID, generation, &record(generation)).to_vec();
        }

        fn tear(&mut self, place: usize, generation: u64) {
            let old = &mut self.0[place][slot_of(generation)];
            old[..512].copy_from_slice(&encode(ID, generation, &record(generation))[..512]);
        }

        fn choose(&self) -> RegisterChoice {
            choose(ID, std::array::from_fn(|place| std::array::from_fn(|slot| self.0[place][slot].as_slice())))
        }

        fn written(generation: u64) -> Disk {
            let mut disk = Disk::blank();
            for generation in 1..=generation {
                disk.write(0, generation);
                disk.write(1, generation);
            }
            disk
        }
    }

    fn record(generation: u64) -> Record {
        let mut record = Record::first_node(NodeId::B, 77);
        record.promised = Ballot { round: generation, node: NodeId::B };
        let mut value = Config { epoch: Epoch(2), ..record.base.clone() };
        value.exceptions = vec![Exception { volume: VolumeId(3), holder: NodeId::A }; crate::types::MAX_EXCEPTIONS];
        record.accepted = generation.is_multiple_of(3).then_some((record.promised, value));
        record
    }

    fn chosen(generation: u64) -> RegisterChoice {
        RegisterChoice::Record { generation, record: Box::new(record(generation)) }
    }

    #[test]
    fn a_blank_register_is_fresh() {
        assert_eq!(Disk::blank().choose(), RegisterChoice::Fresh);
    }

    #[test]
    fn the_newest_generation_is_read_back() {
        for generation in 1..8 {
            assert_eq!(Disk::written(generation).choose(), chosen(generation));
        }
    }

    #[test]
    fn a_write_cut_at_every_point_leaves_the_old_or_the_new_record() {
        for old in 1..6 {
            let new = old + 1;
            let mut disk = Disk::written(old);
            disk.tear(0, new);
            assert_eq!(disk.choose(), chosen(old), "torn in place 0");
            disk.write(0, new);
            assert_eq!(disk.choose(), chosen(new), "only in place 0");
            disk.tear(1, new);
            assert_eq!(disk.choose(), chosen(new), "torn in place 1: the twin is used");
        }
    }

    #[test]
    fn row_51_a_torn_newest_slot_without_a_twin_is_amnesia() {
        for generation in 2..6 {
            let mut disk = Disk::written(generation);
            for place in 0..2 {
                disk.0[place][slot_of(generation)][700] ^= 1;
            }
            assert_eq!(disk.choose(), RegisterChoice::Amnesia);
        }
    }

    #[test]
    fn one_whole_copy_of_each_slot_is_enough() {
        for generation in 2..6 {
            for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut disk = Disk::written(generation);
                disk.0[first][slot_of(generation)] = vec![0xFF; SLOT_BYTES];
                disk.0[second][slot_of(generation + 1)].clear();
                assert_eq!(disk.choose(), chosen(generation));
            }
        }
    }

    #[test]
    fn any_flipped_bit_of_a_copy_is_noticed() {
        let whole = encode(ID, 3, &record(3));
        for bit in (0..SLOT_BYTES * 8).step_by(37) {
            let mut bad = whole;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bad), Slot::Torn), "bit {bit}");
        }
    }

    #[test]
    fn registers_of_others_and_newer_versions_are_named() {
        let mut disk = Disk::written(2);
        let other = RegisterId { pair: 6, node: NodeId::A };
        disk.0[1][1] = encode(other, 1, &record(1)).to_vec();
        assert_eq!(disk.choose(), RegisterChoice::Foreign(other));
        let mut newer = encode(ID, 2, &record(2));
        newer[8] = 2;
        let crc = crc64(&newer[..CRC_AT]);
        newer[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let mut disk = Disk::written(2);
        disk.0[0][0] = newer.to_vec();
        assert_eq!(disk.choose(), RegisterChoice::UnknownVersion(2), "no silent downgrade");
    }

    #[test]
    fn noise_is_never_a_record() {
        let mut noise = Prng::new(1);
        let mut disk = Disk::blank();
        for slot in disk.0.iter_mut().flatten() {
            for byte in slot.iter_mut() {
                *byte = noise.next_u64() as u8;
            }
        }
        assert_eq!(disk.choose(), RegisterChoice::Amnesia);
    }
}
