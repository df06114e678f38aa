//! The register of a node on disk: fixed 4096-byte slots, two slots in each of two files.
//!
//! The writes are numbered from 1. Write n goes to slot n mod 2: first in file 0, synced, then in file 1, synced; then
//! it counts as durable. So at any time at most one of the four slots is being written. On reading:
//!
//! * The record of the highest write number n in any slot is the newest one.
//! * Write n + 1 would be in the other slot. If that slot holds write n − 1 in at least one file (or is blank and n =
//!   1), write n + 1 never became durable: it would have replaced n − 1 in both files.
//! * If that slot holds write n − 1 in neither file, a durable write n + 1 may have been damaged: amnesia. The older
//!   record n is not used.
//!
//! Format, all numbers little-endian; the record's bytes are described in `docs/quorum.md`:
//!
//! ```text
//! 0     8  magic "DYADREG1"
//! 8     4  version, 1
//! 12    4  bytes of the record, 712
//! 16    8  write number, from 1
//! 24   16  pair
//! 40    1  node: 0 A, 1 B
//! 41    7  zero
//! 48  712  record
//! 760      zero
//! 4088  8  CRC-64/XZ of bytes 0..4088
//! ```

use crate::codec::{RECORD_BYTES, crc64, put_record, take_record};
use crate::types::AcceptorRecord;
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

/// The result of [`choose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterChoice {
    /// The newest record and the number of its write; the next write has the next number.
    Record { write_number: u64, record: Box<AcceptorRecord> },
    /// Nothing was ever written: all slots are zero.
    Fresh,
    /// A durable record, and with it promises, may be lost. The store must become a new incarnation, without a vote.
    Amnesia,
    /// A slot belongs to another pair or node.
    Foreign(RegisterId),
    /// A slot was written in another version of the format. The register is not overwritten.
    UnknownVersion(u32),
}

/// Index of the slot, in each file, for the write with this number.
pub fn slot_of(write_number: u64) -> usize {
    (write_number % 2) as usize
}

/// Encodes one slot: header, record, zeros, and a CRC at the end.
pub fn encode(id: RegisterId, write_number: u64, record: &AcceptorRecord) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((RECORD_BYTES as u32).to_le_bytes());
    bytes.extend(write_number.to_le_bytes());
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

/// The decoded content of one slot.
enum Slot {
    /// All bytes are zero: never written.
    Blank,
    /// Unreadable, or the CRC or a field is wrong.
    Torn,
    /// Written in another version of the format.
    OtherVersion(u32),
    Whole {
        id: RegisterId,
        write_number: u64,
        record: Box<AcceptorRecord>,
    },
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
        return Slot::OtherVersion(version);
    }
    let write_number = u64::from_le_bytes(field(bytes, 16));
    let node = match bytes[40] {
        0 => NodeId::A,
        1 => NodeId::B,
        _ => return Slot::Torn,
    };
    let id = RegisterId { pair: u128::from_le_bytes(field(bytes, 24)), node };
    let length = u32::from_le_bytes(field(bytes, 12));
    match take_record(&bytes[HEAD_BYTES..HEAD_BYTES + RECORD_BYTES]) {
        Some(record) if length as usize == RECORD_BYTES && write_number > 0 => {
            Slot::Whole { id, write_number, record: Box::new(record) }
        }
        _ => Slot::Torn,
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// Finds the newest record in the four slots, `files[file][slot]`. A slot that cannot be read is given as an empty
/// slice.
pub fn choose(id: RegisterId, files: [[&[u8]; 2]; 2]) -> RegisterChoice {
    let mut newest: Option<(u64, Box<AcceptorRecord>)> = None;
    let mut write_numbers: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    let mut blanks = [0; 2];
    for file in files {
        for (index, bytes) in file.into_iter().enumerate() {
            match decode(bytes) {
                Slot::Blank => blanks[index] += 1,
                Slot::Torn => {}
                Slot::OtherVersion(version) => return RegisterChoice::UnknownVersion(version),
                Slot::Whole { id: found, .. } if found != id => return RegisterChoice::Foreign(found),
                Slot::Whole { write_number, record, .. } => {
                    if slot_of(write_number) != index {
                        continue;
                    }
                    write_numbers[index].push(write_number);
                    if newest.as_ref().is_none_or(|(newest, _)| write_number > *newest) {
                        newest = Some((write_number, record));
                    }
                }
            }
        }
    }
    let Some((write_number, record)) = newest else {
        return if blanks == [2, 2] { RegisterChoice::Fresh } else { RegisterChoice::Amnesia };
    };
    // The other slot holds the write before at least once, unless a later write, now damaged, replaced it in both
    // files.
    let other = slot_of(write_number + 1);
    if write_numbers[other].contains(&(write_number - 1)) || (write_number == 1 && blanks[other] > 0) {
        RegisterChoice::Record { write_number, record }
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

    /// Two files of two slots each, written as the format demands.
    #[derive(Clone)]
    struct Disk([[Vec<u8>; 2]; 2]);

    impl Disk {
        fn blank() -> Disk {
            Disk(std::array::from_fn(|_| std::array::from_fn(|_| BLANK.to_vec())))
        }

        fn write(&mut self, file: usize, write_number: u64) {
            self.0[file][slot_of(write_number)] = encode(ID, write_number, &record(write_number)).to_vec();
        }

        fn tear(&mut self, file: usize, write_number: u64) {
            let old = &mut self.0[file][slot_of(write_number)];
            old[..512].copy_from_slice(&encode(ID, write_number, &record(write_number))[..512]);
        }

        fn choose(&self) -> RegisterChoice {
            choose(ID, std::array::from_fn(|file| std::array::from_fn(|slot| self.0[file][slot].as_slice())))
        }

        fn written(write_number: u64) -> Disk {
            let mut disk = Disk::blank();
            for write_number in 1..=write_number {
                disk.write(0, write_number);
                disk.write(1, write_number);
            }
            disk
        }
    }

    fn record(write_number: u64) -> AcceptorRecord {
        let mut record = AcceptorRecord::first_node(NodeId::B, 77);
        record.promised = Ballot { round: write_number, node: NodeId::B };
        let mut value = Config { epoch: Epoch(2), ..record.base.clone() };
        value.exceptions = vec![Exception { volume: VolumeId(3), holder: NodeId::A }; crate::types::MAX_EXCEPTIONS];
        record.accepted = write_number.is_multiple_of(3).then_some((record.promised, value));
        record
    }

    fn chosen(write_number: u64) -> RegisterChoice {
        RegisterChoice::Record { write_number, record: Box::new(record(write_number)) }
    }

    #[test]
    fn a_blank_register_is_fresh() {
        assert_eq!(Disk::blank().choose(), RegisterChoice::Fresh);
    }

    #[test]
    fn the_newest_generation_is_read_back() {
        for write_number in 1..8 {
            assert_eq!(Disk::written(write_number).choose(), chosen(write_number));
        }
    }

    #[test]
    fn a_write_interrupted_at_any_point_leaves_the_old_or_the_new_record() {
        for old in 1..6 {
            let new = old + 1;
            let mut disk = Disk::written(old);
            disk.tear(0, new);
            assert_eq!(disk.choose(), chosen(old), "torn in file 0");
            disk.write(0, new);
            assert_eq!(disk.choose(), chosen(new), "only in file 0");
            disk.tear(1, new);
            assert_eq!(disk.choose(), chosen(new), "torn in file 1: the copy in file 0 is used");
        }
    }

    #[test]
    fn row_51_a_newest_slot_that_is_torn_in_both_files_is_amnesia() {
        for write_number in 2..6 {
            let mut disk = Disk::written(write_number);
            for file in 0..2 {
                disk.0[file][slot_of(write_number)][700] ^= 1;
            }
            assert_eq!(disk.choose(), RegisterChoice::Amnesia);
        }
    }

    /// A later write may have been in the file that was replaced by a blank one.
    #[test]
    fn a_blank_copy_beside_an_older_record_is_amnesia() {
        for write_number in 3..6 {
            let mut disk = Disk::written(write_number);
            for file in 0..2 {
                disk.0[file][slot_of(write_number)] = vec![0; SLOT_BYTES];
            }
            assert_eq!(disk.choose(), RegisterChoice::Amnesia);
        }
    }

    #[test]
    fn one_whole_copy_of_each_slot_is_enough() {
        for write_number in 2..6 {
            for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut disk = Disk::written(write_number);
                disk.0[first][slot_of(write_number)] = vec![0xFF; SLOT_BYTES];
                disk.0[second][slot_of(write_number + 1)].clear();
                assert_eq!(disk.choose(), chosen(write_number));
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
    fn registers_of_other_nodes_and_other_versions_are_named() {
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
    fn random_bytes_are_never_a_record() {
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
