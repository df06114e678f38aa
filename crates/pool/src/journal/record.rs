//! One journal record in bytes: a head of whole blocks, then the data blocks.

use crate::birth::Birth;
use crate::checksum;
use crate::codec::{Reader, Writer};
use dyad_types::{BLOCK, BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};
use std::ops::Range;

pub(crate) const MAGIC: &[u8; 8] = b"DYADREC1";
/// Bytes before the body.
const FIXED: usize = 76;
/// Offset of the checksum.
const CRC_AT: usize = 8;

/// The fixed fields of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub salt: u128,
    pub record: u64,
    pub session: u64,
    /// The last record known durable when this one was written.
    pub synced: u64,
    pub position: u64,
    /// Checksum of the record before.
    pub chain: u32,
    pub data_blocks: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// No operation; carries `synced` when the journal is idle.
    Note,
    /// No operation; the rest of the ring is unused.
    Filler,
    Write {
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        birth: Birth,
        crcs: Vec<u32>,
    },
    Discard {
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        count: u64,
    },
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
    Meta {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Create {
        volume: VolumeId,
        blocks: u64,
    },
    Resize {
        volume: VolumeId,
        blocks: u64,
    },
    Delete {
        volume: VolumeId,
    },
}

impl Record {
    fn kind(&self) -> u16 {
        match self {
            Record::Note => 0,
            Record::Filler => 1,
            Record::Write { .. } => 2,
            Record::Discard { .. } => 3,
            Record::Confirm { .. } => 4,
            Record::Dirty { .. } => 5,
            Record::Clean { .. } => 6,
            Record::Meta { .. } => 7,
            Record::Create { .. } => 8,
            Record::Resize { .. } => 9,
            Record::Delete { .. } => 10,
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Record::Note | Record::Filler => {}
            Record::Write { volume, stamp, block, birth, crcs } => {
                w.u64(volume.0).u64(stamp.epoch.0).u64(stamp.seq.0).u64(block.0).u64(birth.0);
                for crc in crcs {
                    w.u32(*crc);
                }
            }
            Record::Discard { volume, stamp, block, count } => {
                w.u64(volume.0).u64(stamp.epoch.0).u64(stamp.seq.0).u64(block.0).u64(*count);
            }
            Record::Confirm { volume, seq } => {
                w.u64(volume.0).u64(seq.0);
            }
            Record::Dirty { volume, extents } | Record::Clean { volume, extents } => {
                w.u64(volume.0).u64(extents.start.0).u64(extents.end.0);
            }
            Record::Meta { key, value } => {
                w.sized(key).u8(u8::from(value.is_some())).bytes(value.as_deref().unwrap_or_default());
            }
            Record::Create { volume, blocks } | Record::Resize { volume, blocks } => {
                w.u64(volume.0).u64(*blocks);
            }
            Record::Delete { volume } => {
                w.u64(volume.0);
            }
        }
        w.0
    }

    fn parse(kind: u16, data_blocks: u32, body: &[u8]) -> Option<Record> {
        let mut r = Reader(body);
        let record = match kind {
            0 => Record::Note,
            1 => Record::Filler,
            2 => {
                let (volume, stamp) = (VolumeId(r.u64()?), Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) });
                let (block, birth) = (BlockIndex(r.u64()?), Birth(r.u64()?));
                let crcs = (0..data_blocks).map(|_| r.u32()).collect::<Option<_>>()?;
                Record::Write { volume, stamp, block, birth, crcs }
            }
            3 => Record::Discard {
                volume: VolumeId(r.u64()?),
                stamp: Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) },
                block: BlockIndex(r.u64()?),
                count: r.u64()?,
            },
            4 => Record::Confirm { volume: VolumeId(r.u64()?), seq: Seq(r.u64()?) },
            5 => Record::Dirty { volume: VolumeId(r.u64()?), extents: ExtentIndex::range(r.u64()?..r.u64()?) },
            6 => Record::Clean { volume: VolumeId(r.u64()?), extents: ExtentIndex::range(r.u64()?..r.u64()?) },
            7 => {
                let key = r.sized()?.to_vec();
                let there = r.u8()? == 1;
                let value = r.take(r.0.len())?.to_vec();
                Record::Meta { key, value: there.then_some(value) }
            }
            8 => Record::Create { volume: VolumeId(r.u64()?), blocks: r.u64()? },
            9 => Record::Resize { volume: VolumeId(r.u64()?), blocks: r.u64()? },
            10 => Record::Delete { volume: VolumeId(r.u64()?) },
            _ => return None,
        };
        r.0.is_empty().then_some(record)
    }
}

/// Bytes of a record's head: fixed fields and body, in whole blocks.
pub(crate) fn head_bytes(record: &Record) -> usize {
    let body = match record {
        Record::Write { crcs, .. } => 40 + 4 * crcs.len(),
        Record::Meta { key, value } => 5 + key.len() + value.as_ref().map_or(0, Vec::len),
        _ => 40,
    };
    (FIXED + body).next_multiple_of(BLOCK)
}

/// The head in bytes, and its checksum.
pub(crate) fn encode(head: &Head, record: &Record) -> (Vec<u8>, u32) {
    let body = record.body();
    let mut w = Writer(Vec::with_capacity(head_bytes(record) + head.data_blocks as usize * BLOCK));
    w.bytes(MAGIC).u32(0).u16(1).u16(record.kind());
    w.u128(head.salt).u64(head.record).u64(head.session).u64(head.synced).u64(head.position);
    w.u32(head.chain).u32(head.data_blocks).u32(body.len() as u32);
    debug_assert_eq!(w.0.len(), FIXED);
    w.bytes(&body);
    w.0.resize(head_bytes(record), 0);
    let crc = checksum::plain(&w.0);
    w.0[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    (w.0, crc)
}

/// The length of the head and the fixed fields, from the first block of a record, not verified.
///
/// `None` if the block is no record of the pool with this salt.
pub(crate) fn peek(block: &[u8], salt: u128) -> Option<(usize, Head)> {
    let mut r = Reader(block);
    if r.take(8)? != MAGIC {
        return None;
    }
    r.take(8)?;
    let head = Head {
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
    (head.salt == salt && body <= limit && u64::from(head.data_blocks) <= crate::MAX_WRITE_BLOCKS)
        .then(|| ((FIXED + body).next_multiple_of(BLOCK), head))
}

/// The record and checksum of a whole head; `None` if the checksum does not match.
pub(crate) fn decode(bytes: &[u8], head: &Head) -> Option<(Record, u32)> {
    let stored = u32::from_le_bytes(bytes.get(CRC_AT..CRC_AT + 4)?.try_into().ok()?);
    let crc = checksum::joined([&bytes[..CRC_AT], &[0; 4], &bytes[CRC_AT + 4..]]);
    if crc != stored {
        return None;
    }
    let mut r = Reader(&bytes[CRC_AT + 4..]);
    let (version, kind) = (r.u16()?, r.u16()?);
    let body_len = u32::from_le_bytes(bytes.get(FIXED - 4..FIXED)?.try_into().ok()?) as usize;
    let record = Record::parse(kind, head.data_blocks, bytes.get(FIXED..FIXED + body_len)?)?;
    (version == 1).then_some((record, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_bit_flip_is_seen() {
        let write = Record::Write {
            volume: VolumeId(1),
            stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
            block: BlockIndex(4),
            birth: Birth(0),
            crcs: vec![9; 256],
        };
        let all = [
            (write, 256),
            (Record::Note, 0),
            (Record::Filler, 0),
            (
                Record::Discard {
                    volume: VolumeId(1),
                    stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
                    block: BlockIndex(4),
                    count: 5,
                },
                0,
            ),
            (Record::Confirm { volume: VolumeId(1), seq: Seq(4) }, 0),
            (Record::Dirty { volume: VolumeId(1), extents: ExtentIndex::range(4..9) }, 0),
            (Record::Clean { volume: VolumeId(1), extents: ExtentIndex::range(4..9) }, 0),
            (Record::Meta { key: b"k".to_vec(), value: Some(vec![1; 9000]) }, 0),
            (Record::Meta { key: b"k".to_vec(), value: None }, 0),
            (Record::Create { volume: VolumeId(1), blocks: 10 }, 0),
            (Record::Resize { volume: VolumeId(1), blocks: 20 }, 0),
            (Record::Delete { volume: VolumeId(1) }, 0),
        ];
        for (record, data_blocks) in all {
            let head = Head { salt: 5, record: 6, session: 7, synced: 8, position: 4096, chain: 10, data_blocks };
            let (bytes, crc) = encode(&head, &record);
            assert_eq!(bytes.len(), head_bytes(&record));
            let (len, seen) = peek(&bytes[..BLOCK], 5).unwrap();
            assert_eq!((len, seen), (bytes.len(), head));
            assert_eq!(decode(&bytes, &head), Some((record, crc)));
            for bit in (0..bytes.len() * 8).step_by(101) {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bad, &head), None);
            }
            assert!(peek(&bytes[..BLOCK], 6).is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_never_decodes(noise in proptest::collection::vec(0u8..=255, BLOCK)) {
            let mut block = noise;
            block[..8].copy_from_slice(MAGIC);
            let head = Head { salt: 0, record: 0, session: 0, synced: 0, position: 0, chain: 0, data_blocks: 0 };
            let _ = peek(&block, 0);
            assert_eq!(decode(&block, &head), None);
        }
    }
}
