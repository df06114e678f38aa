//! Records of the index. Each value ends with a CRC32C over key and value.

use super::key;
use crate::birth::Birth;
use crate::checksum;
use crate::codec::{Reader, Writer};
use dyad_types::{CHUNK_BYTES, EXTENT_BLOCKS, Epoch, Seq, Stamp, VolumeId};

/// Appends the checksum to a value; returns it also as a number, for the sum in the root record.
pub(crate) fn seal(key: &[u8], mut value: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = checksum::joined([key, &value]);
    value.extend_from_slice(&crc.to_le_bytes());
    (value, crc)
}

/// A record. Its value ends with the checksum as long as the index holds it; callers get it without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexEntry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Verifies the checksum at the end of a value; returns the value without it, and the checksum. `None` if it does not
/// match.
pub(crate) fn unseal(stored: IndexEntry<'_>) -> Option<(&[u8], u32)> {
    let (value, crc) = stored.value.split_at_checked(stored.value.len().checked_sub(4)?)?;
    let expected = checksum::joined([stored.key, value]);
    (expected.to_le_bytes() == crc).then_some((value, expected))
}

/// The record of a stored extent: its slot and the checksums of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtentRow {
    pub slot: u64,
    /// Mask of the blocks that were written and not discarded; the other blocks read as zeros.
    pub present: u16,
    /// Checksum of each present block, 0 for each other block.
    pub crcs: [u32; EXTENT_BLOCKS as usize],
    /// Stamp of the newest write or discard in the extent.
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

/// The record of a volume's metadata. Its sets of dirty and unconfirmed extents have records of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeRow {
    /// Size of the volume in blocks.
    pub blocks: u64,
    pub birth: Birth,
    /// Stamp of the newest write or discard.
    pub last: Stamp,
    /// Both nodes hold the writes up to this one durably.
    pub confirmed: Seq,
    /// A confirmation of this number or a higher one empties the set of unconfirmed extents.
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

/// A record of metadata, as it is read at open. Each set of extents comes in chunks: number and bitmap.
pub(crate) enum MetadataRow {
    Volume(VolumeId, VolumeRow),
    Dirty(VolumeId, u64, Box<[u8; CHUNK_BYTES]>),
    /// With the `unconfirmed_highest` of the volume's record.
    Unconfirmed(VolumeId, u64, Box<[u8; CHUNK_BYTES]>, Seq),
    /// Key and value of a named value.
    Meta(Vec<u8>, Vec<u8>),
}

/// The root record. It tells which checkpoint committed the index, and detects lost and old records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexRoot {
    /// Id of the disk that the index belongs to.
    pub disk: u128,
    /// Number of the checkpoint that committed the index.
    pub checkpoint: u64,
    /// Number of the other records.
    pub count: u64,
    /// Wrapping sum of the checksums of the other records.
    pub sum: u64,
}

impl IndexRoot {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u128(self.disk).u64(self.checkpoint).u64(self.count).u64(self.sum);
        seal(key::ROOT, w.0).0
    }

    pub fn decode(stored: &[u8]) -> Option<Self> {
        let mut r = Reader(unseal(IndexEntry { key: key::ROOT, value: stored })?.0);
        let root = Self { disk: r.u128()?, checkpoint: r.u64()?, count: r.u64()?, sum: r.u64()? };
        r.0.is_empty().then_some(root)
    }

    /// Adds a record with this checksum to number and sum.
    pub fn add(&mut self, crc: u32) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from(crc));
    }

    /// Removes a record with this checksum from number and sum.
    pub fn subtract(&mut self, crc: u32) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(u64::from(crc));
    }
}
