//! The encoding of a journal record: a header of one or more whole blocks, then the data blocks.

use crate::birth::Birth;
use crate::checksum;
use crate::codec::{Reader, Writer};
use dyad_types::{BLOCK, BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};
use std::ops::Range;

pub(crate) const MAGIC: &[u8; 8] = b"DYADREC1";
/// Bytes of the header before the body.
const FIXED: usize = 76;
/// Offset of the header's checksum.
const CRC_AT: usize = 8;

/// The fields that every record has, beside checksum, version, kind and length of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// That of the label.
    pub salt: u128,
    /// Number of this record; the first record of a pool has 1.
    pub record: u64,
    /// Session of the pool that wrote this record, as in the label.
    pub session: u64,
    /// The last record that was known to be durable when this one was written.
    pub synced: u64,
    /// Logical position of this record.
    pub position: u64,
    /// Checksum of the header of the record before.
    pub chain: u32,
    pub data_blocks: u32,
}

/// An operation of the pool as the journal records it: kind and body of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalRecord {
    /// No operation. Written when the pool is idle, for the `synced` field in its header.
    Note,
    /// No operation. It takes the rest of the ring if the next record does not fit there.
    Filler,
    Write {
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        birth: Birth,
        /// Checksum of each data block.
        crcs: Vec<u32>,
    },
    Discard {
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        /// Number of blocks.
        count: u64,
    },
    /// Both nodes hold the writes up to `seq` durably.
    Confirm {
        volume: VolumeId,
        seq: Seq,
    },
    Dirty {
        volume: VolumeId,
        extents: Range<ExtentIndex>,
    },
    Clean {
        volume: VolumeId,
        extents: Range<ExtentIndex>,
    },
    /// A named value is set or, with `None`, deleted.
    Meta {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Create {
        volume: VolumeId,
        /// Size of the volume in blocks.
        blocks: u64,
    },
    Resize {
        volume: VolumeId,
        /// New size of the volume in blocks.
        blocks: u64,
    },
    Delete {
        volume: VolumeId,
    },
    /// Blocks have no content that may be read, until they are written or discarded. Only in pools of format 2.
    MarkLost {
        volume: VolumeId,
        stamp: Stamp,
        extent: ExtentIndex,
        /// Mask of the blocks of the extent.
        blocks: u16,
    },
}

impl JournalRecord {
    fn kind(&self) -> u16 {
        match self {
            JournalRecord::Note => 0,
            JournalRecord::Filler => 1,
            JournalRecord::Write { .. } => 2,
            JournalRecord::Discard { .. } => 3,
            JournalRecord::Confirm { .. } => 4,
            JournalRecord::Dirty { .. } => 5,
            JournalRecord::Clean { .. } => 6,
            JournalRecord::Meta { .. } => 7,
            JournalRecord::Create { .. } => 8,
            JournalRecord::Resize { .. } => 9,
            JournalRecord::Delete { .. } => 10,
            JournalRecord::MarkLost { .. } => 11,
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            JournalRecord::Note | JournalRecord::Filler => {}
            JournalRecord::Write { volume, stamp, block, birth, crcs } => {
                w.u64(volume.0).u64(stamp.epoch.0).u64(stamp.seq.0).u64(block.0).u64(birth.0);
                for crc in crcs {
                    w.u32(*crc);
                }
            }
            JournalRecord::Discard { volume, stamp, block, count } => {
                w.u64(volume.0).u64(stamp.epoch.0).u64(stamp.seq.0).u64(block.0).u64(*count);
            }
            JournalRecord::Confirm { volume, seq } => {
                w.u64(volume.0).u64(seq.0);
            }
            JournalRecord::Dirty { volume, extents } | JournalRecord::Clean { volume, extents } => {
                w.u64(volume.0).u64(extents.start.0).u64(extents.end.0);
            }
            JournalRecord::Meta { key, value } => {
                w.sized(key).u8(u8::from(value.is_some())).bytes(value.as_deref().unwrap_or_default());
            }
            JournalRecord::Create { volume, blocks } | JournalRecord::Resize { volume, blocks } => {
                w.u64(volume.0).u64(*blocks);
            }
            JournalRecord::Delete { volume } => {
                w.u64(volume.0);
            }
            JournalRecord::MarkLost { volume, stamp, extent, blocks } => {
                w.u64(volume.0).u64(stamp.epoch.0).u64(stamp.seq.0).u64(extent.0).u16(*blocks);
            }
        }
        w.0
    }

    fn parse(kind: u16, data_blocks: u32, body: &[u8]) -> Option<JournalRecord> {
        let mut r = Reader(body);
        let record = match kind {
            0 => JournalRecord::Note,
            1 => JournalRecord::Filler,
            2 => {
                let (volume, stamp) = (VolumeId(r.u64()?), Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) });
                let (block, birth) = (BlockIndex(r.u64()?), Birth(r.u64()?));
                let crcs = (0..data_blocks).map(|_| r.u32()).collect::<Option<_>>()?;
                JournalRecord::Write { volume, stamp, block, birth, crcs }
            }
            3 => JournalRecord::Discard {
                volume: VolumeId(r.u64()?),
                stamp: Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) },
                block: BlockIndex(r.u64()?),
                count: r.u64()?,
            },
            4 => JournalRecord::Confirm { volume: VolumeId(r.u64()?), seq: Seq(r.u64()?) },
            5 => JournalRecord::Dirty { volume: VolumeId(r.u64()?), extents: ExtentIndex::range(r.u64()?..r.u64()?) },
            6 => JournalRecord::Clean { volume: VolumeId(r.u64()?), extents: ExtentIndex::range(r.u64()?..r.u64()?) },
            7 => {
                let key = r.sized()?.to_vec();
                let is_set = r.u8()? == 1;
                let value = r.take(r.0.len())?.to_vec();
                JournalRecord::Meta { key, value: is_set.then_some(value) }
            }
            8 => JournalRecord::Create { volume: VolumeId(r.u64()?), blocks: r.u64()? },
            9 => JournalRecord::Resize { volume: VolumeId(r.u64()?), blocks: r.u64()? },
            10 => JournalRecord::Delete { volume: VolumeId(r.u64()?) },
            11 => JournalRecord::MarkLost {
                volume: VolumeId(r.u64()?),
                stamp: Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) },
                extent: ExtentIndex(r.u64()?),
                blocks: r.u16()?,
            },
            _ => return None,
        };
        r.0.is_empty().then_some(record)
    }
}

/// Bytes of the header of this record: fixed fields and body, rounded up to whole blocks.
pub(crate) fn header_bytes(record: &JournalRecord) -> usize {
    let body = match record {
        JournalRecord::Write { crcs, .. } => 40 + 4 * crcs.len(),
        JournalRecord::Meta { key, value } => 5 + key.len() + value.as_ref().map_or(0, Vec::len),
        _ => 40,
    };
    (FIXED + body).next_multiple_of(BLOCK)
}

/// Encodes a header; returns also its checksum. The vector has capacity for the data blocks.
pub(crate) fn encode(header: &RecordHeader, record: &JournalRecord) -> (Vec<u8>, u32) {
    let body = record.body();
    let mut w = Writer(Vec::with_capacity(header_bytes(record) + header.data_blocks as usize * BLOCK));
    w.bytes(MAGIC).u32(0).u16(1).u16(record.kind());
    w.u128(header.salt).u64(header.record).u64(header.session).u64(header.synced).u64(header.position);
    w.u32(header.chain).u32(header.data_blocks).u32(body.len() as u32);
    debug_assert_eq!(w.0.len(), FIXED);
    w.bytes(&body);
    w.0.resize(header_bytes(record), 0);
    let crc = checksum::plain(&w.0);
    w.0[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    (w.0, crc)
}

/// Length in bytes and fixed fields of a header, from the first block of a record. The checksum is not verified.
///
/// `None` if the block does not start a record of the pool with this salt.
pub(crate) fn peek(block: &[u8], salt: u128) -> Option<(usize, RecordHeader)> {
    let mut r = Reader(block);
    if r.take(8)? != MAGIC {
        return None;
    }
    r.take(8)?;
    let header = RecordHeader {
        salt: r.u128()?,
        record: r.u64()?,
        session: r.u64()?,
        synced: r.u64()?,
        position: r.u64()?,
        chain: r.u32()?,
        data_blocks: r.u32()?,
    };
    let body = r.u32()? as usize;
    let limit = crate::META_VALUE_MAX + crate::META_KEY_MAX + BLOCK;
    (header.salt == salt && body <= limit && u64::from(header.data_blocks) <= crate::MAX_WRITE_BLOCKS)
        .then(|| ((FIXED + body).next_multiple_of(BLOCK), header))
}

/// The record, and the checksum, of a header of which all bytes are given. `None` if the checksum does not match or the
/// body is invalid.
pub(crate) fn decode(bytes: &[u8], header: &RecordHeader) -> Option<(JournalRecord, u32)> {
    let stored = u32::from_le_bytes(bytes.get(CRC_AT..CRC_AT + 4)?.try_into().ok()?);
    let crc = checksum::joined([&bytes[..CRC_AT], &[0; 4], &bytes[CRC_AT + 4..]]);
    if crc != stored {
        return None;
    }
    let mut r = Reader(&bytes[CRC_AT + 4..]);
    let (version, kind) = (r.u16()?, r.u16()?);
    let body_len = u32::from_le_bytes(bytes.get(FIXED - 4..FIXED)?.try_into().ok()?) as usize;
    let record = JournalRecord::parse(kind, header.data_blocks, bytes.get(FIXED..FIXED + body_len)?)?;
    (version == 1).then_some((record, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_read_back_and_a_flipped_bit_is_detected() {
        let write = JournalRecord::Write {
            volume: VolumeId(1),
            stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
            block: BlockIndex(4),
            birth: Birth(0),
            crcs: vec![9; 256],
        };
        let all = [
            (write, 256),
            (JournalRecord::Note, 0),
            (JournalRecord::Filler, 0),
            (
                JournalRecord::Discard {
                    volume: VolumeId(1),
                    stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
                    block: BlockIndex(4),
                    count: 5,
                },
                0,
            ),
            (JournalRecord::Confirm { volume: VolumeId(1), seq: Seq(4) }, 0),
            (JournalRecord::Dirty { volume: VolumeId(1), extents: ExtentIndex::range(4..9) }, 0),
            (JournalRecord::Clean { volume: VolumeId(1), extents: ExtentIndex::range(4..9) }, 0),
            (JournalRecord::Meta { key: b"k".to_vec(), value: Some(vec![1; 9000]) }, 0),
            (JournalRecord::Meta { key: b"k".to_vec(), value: None }, 0),
            (JournalRecord::Create { volume: VolumeId(1), blocks: 10 }, 0),
            (JournalRecord::Resize { volume: VolumeId(1), blocks: 20 }, 0),
            (JournalRecord::Delete { volume: VolumeId(1) }, 0),
            (
                JournalRecord::MarkLost {
                    volume: VolumeId(1),
                    stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
                    extent: ExtentIndex(4),
                    blocks: 0x8001,
                },
                0,
            ),
        ];
        for (record, data_blocks) in all {
            let header =
                RecordHeader { salt: 5, record: 6, session: 7, synced: 8, position: 4096, chain: 10, data_blocks };
            let (bytes, crc) = encode(&header, &record);
            assert_eq!(bytes.len(), header_bytes(&record));
            let (len, seen) = peek(&bytes[..BLOCK], 5).unwrap();
            assert_eq!((len, seen), (bytes.len(), header));
            assert_eq!(decode(&bytes, &header), Some((record, crc)));
            for bit in (0..bytes.len() * 8).step_by(101) {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bad, &header), None);
            }
            assert!(peek(&bytes[..BLOCK], 6).is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_block_of_random_bytes_is_no_record(noise in proptest::collection::vec(0u8..=255, BLOCK)) {
            let mut block = noise;
            block[..8].copy_from_slice(MAGIC);
            let header =
                RecordHeader { salt: 0, record: 0, session: 0, synced: 0, position: 0, chain: 0, data_blocks: 0 };
            let _ = peek(&block, 0);
            assert_eq!(decode(&block, &header), None);
        }
    }
}
