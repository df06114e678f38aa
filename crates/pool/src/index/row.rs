//! Values of the index. Each ends with a CRC32C over the key and the value.

use super::key;
use crate::birth::Birth;
use crate::checksum;
use crate::codec::{Reader, Writer};
use dyad_types::{CHUNK_BYTES, EXTENT_BLOCKS, Epoch, Seq, Stamp, VolumeId};

pub(crate) fn seal(key: &[u8], mut value: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = checksum::joined([key, &value]);
    value.extend_from_slice(&crc.to_le_bytes());
    (value, crc)
}

/// A record as the index holds it or, without its checksum, as a caller sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Verifies and removes the checksum.
pub(crate) fn unseal(stored: Entry<'_>) -> Option<(&[u8], u32)> {
    let (value, crc) = stored.value.split_at_checked(stored.value.len().checked_sub(4)?)?;
    let expected = checksum::joined([stored.key, value]);
    (expected.to_le_bytes() == crc).then_some((value, expected))
}

/// Place of an extent on its disk and checksums of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtentRow {
    pub slot: u64,
    /// Mask of the blocks that exist.
    pub present: u16,
    pub crcs: [u32; EXTENT_BLOCKS as usize],
    /// Epoch and sequence number of the last change.
    pub last: Stamp,
}

impl ExtentRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.slot).u64(self.last.epoch.0).u64(self.last.seq.0).u16(self.present);
        for crc in self.crcs {
            w.u32(crc);
        }
        w.0
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut r = Reader(value);
        let (slot, last, present) = (r.u64()?, Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) }, r.u16()?);
        let mut crcs = [0; EXTENT_BLOCKS as usize];
        for crc in &mut crcs {
            *crc = r.u32()?;
        }
        r.0.is_empty().then_some(Self { slot, present, crcs, last })
    }
}

/// Metadata of a volume without its sets of extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeRow {
    pub blocks: u64,
    pub birth: Birth,
    pub last: Stamp,
    pub confirmed: Seq,
    /// A confirmation up to this number empties the list of unconfirmed extents.
    pub unconfirmed_highest: Seq,
    pub deleting: bool,
}

impl VolumeRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.blocks).u64(self.birth.0).u64(self.last.epoch.0).u64(self.last.seq.0);
        w.u64(self.confirmed.0).u64(self.unconfirmed_highest.0).u8(u8::from(self.deleting));
        w.0
    }

    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut r = Reader(value);
        let row = Self {
            blocks: r.u64()?,
            birth: Birth(r.u64()?),
            last: Stamp { epoch: Epoch(r.u64()?), seq: Seq(r.u64()?) },
            confirmed: Seq(r.u64()?),
            unconfirmed_highest: Seq(r.u64()?),
            deleting: r.u8()? != 0,
        };
        r.0.is_empty().then_some(row)
    }
}

/// A row of metadata, as read at open.
pub(crate) enum Row {
    Volume(VolumeId, VolumeRow),
    Dirty(VolumeId, u64, Box<[u8; CHUNK_BYTES]>),
    Unconfirmed(VolumeId, u64, Box<[u8; CHUNK_BYTES]>, Seq),
    Meta(Vec<u8>, Vec<u8>),
}

/// The root record: the checkpoint of the index and the sum over its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// The disk this index belongs to.
    pub disk: u128,
    /// The checkpoint that committed the index.
    pub checkpoint: u64,
    /// Number of records without the root.
    pub count: u64,
    /// Sum of the checksums of all records.
    pub sum: u64,
}

impl Root {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u128(self.disk).u64(self.checkpoint).u64(self.count).u64(self.sum);
        seal(key::ROOT, w.0).0
    }

    pub fn decode(stored: &[u8]) -> Option<Self> {
        let mut r = Reader(unseal(Entry { key: key::ROOT, value: stored })?.0);
        let root = Self { disk: r.u128()?, checkpoint: r.u64()?, count: r.u64()?, sum: r.u64()? };
        r.0.is_empty().then_some(root)
    }

    pub fn add(&mut self, crc: u32) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from(crc));
    }

    pub fn subtract(&mut self, crc: u32) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(u64::from(crc));
    }
}
