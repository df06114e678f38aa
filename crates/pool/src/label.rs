//! The label of a disk: its pair, its node, the disks of the pool, and the tail of the journal. Each disk holds four
//! copies.

use crate::codec::{Reader, Writer};
use crate::disk::{Access, Device, DiskError};
use crate::{checksum, layout};
use dyad_types::{BLOCK, NodeId};

pub(crate) const MAGIC: &[u8; 8] = b"DYADPOOL";
/// Format version of a new label. Programs of version 1 read it.
pub(crate) const FIRST_VERSION: u32 = 1;
/// Highest format version that this program reads. A pool gets it before its first
/// [`crate::journal::record::JournalRecord::MarkLost`], which programs of version 1 would take for the end of the journal.
pub(crate) const VERSION: u32 = 2;
/// Largest number of pool disks of one node.
pub(crate) const DISKS_MAX: usize = 24;
/// Largest length of the name of a pair or node, in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// The pair and node that a disk belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolIdentity {
    /// Id of the pair; the same on both nodes.
    pub pool: u128,
    /// The node; the label stores its letter.
    pub node: NodeId,
    /// The pair's name, for people; at most 255 bytes.
    pub pair_name: String,
    /// The node's name, for people; at most 255 bytes.
    pub node_name: String,
}

/// The start of replay: the first journal record that is not in the indexes, and its link to the record before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalTail {
    /// Logical position of that record, in bytes.
    pub position: u64,
    /// Number of that record; the first record of a pool has 1.
    pub record: u64,
    /// Checksum of the header of the record before it.
    pub chain: u32,
    /// Session of the record before it; later records have this session or a later one.
    pub session: u64,
}

/// The content of a label. On disks other than disk 0, `session`, `resumed`, `checkpoint`, `tail` and `floor` are not
/// kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Format version, [`FIRST_VERSION`] to [`VERSION`]; programs that do not know it refuse the disk.
    pub version: u32,
    /// Grows by one each time the label is written; of the four copies the good one with the highest number counts.
    pub generation: u64,
    pub identity: PoolIdentity,
    /// Random id of this disk.
    pub disk: u128,
    /// Index of this disk in `disks`; the journal is on disk 0.
    pub number: u16,
    /// Ids of all disks of the node's pool.
    pub disks: Vec<u128>,
    /// Bytes of this disk when it was formatted.
    pub size: u64,
    /// Bytes of the journal on this disk; 0 on each disk but disk 0.
    pub journal: u64,
    /// Number of slots for extents on this disk.
    pub slots: u64,
    /// Random number that each journal record contains, so that guest data is never taken for a record.
    pub salt: u128,
    /// Number of times the pool was opened.
    pub session: u64,
    /// Number of the first journal record of session `session`. From it on, records of other sessions are invalid.
    pub resumed: u64,
    /// Number of the last finished checkpoint.
    pub checkpoint: u64,
    pub tail: JournalTail,
    /// Number of a journal record: it and all records before it are known to have been durable.
    pub floor: u64,
}

impl Label {
    /// The label as one block of 4096 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.bytes(MAGIC).u32(self.version).u64(self.generation);
        w.u128(self.identity.pool).u8(self.identity.node.letter());
        w.sized(self.identity.pair_name.as_bytes()).sized(self.identity.node_name.as_bytes());
        w.u128(self.disk).u16(self.number).u16(self.disks.len() as u16);
        for disk in &self.disks {
            w.u128(*disk);
        }
        w.u64(self.size).u64(self.journal).u64(self.slots).u128(self.salt);
        w.u64(self.session).u64(self.resumed).u64(self.checkpoint);
        w.u64(self.tail.position).u64(self.tail.record).u32(self.tail.chain).u64(self.tail.session);
        w.u64(self.floor);
        assert!(w.0.len() <= BLOCK - 4, "a label fits a block: names and disk count are bounded");
        w.0.resize(BLOCK - 4, 0);
        let crc = checksum::plain(&w.0);
        w.u32(crc);
        w.0
    }

    /// Reads the block at one of the four places.
    pub fn decode(block: &[u8]) -> DecodedLabel {
        let mut r = Reader(block);
        if r.take(8) != Some(MAGIC) {
            return if checksum::is_zero(block) { DecodedLabel::Blank } else { DecodedLabel::Other };
        }
        let (body, crc) = block.split_at(BLOCK - 4);
        if checksum::plain(body).to_le_bytes() != crc {
            return DecodedLabel::Damaged;
        }
        match r.u32() {
            Some(version @ FIRST_VERSION..=VERSION) => {
                Self::decode_fields(&mut r, version).map_or(DecodedLabel::Damaged, |l| DecodedLabel::Good(Box::new(l)))
            }
            Some(unknown) => DecodedLabel::Newer(unknown),
            None => DecodedLabel::Damaged,
        }
    }

    /// Reads the fields behind the version; `None` if they are invalid.
    fn decode_fields(r: &mut Reader, version: u32) -> Option<Label> {
        let generation = r.u64()?;
        let identity = PoolIdentity {
            pool: r.u128()?,
            node: NodeId::from_letter(r.u8()?)?,
            pair_name: r.text()?,
            node_name: r.text()?,
        };
        let (disk, number, count) = (r.u128()?, r.u16()?, r.u16()?);
        let disks: Vec<u128> = (0..count).map(|_| r.u128()).collect::<Option<_>>()?;
        let label = Label {
            version,
            generation,
            identity,
            disk,
            number,
            disks,
            size: r.u64()?,
            journal: r.u64()?,
            slots: r.u64()?,
            salt: r.u128()?,
            session: r.u64()?,
            resumed: r.u64()?,
            checkpoint: r.u64()?,
            tail: JournalTail { position: r.u64()?, record: r.u64()?, chain: r.u32()?, session: r.u64()? },
            floor: r.u64()?,
        };
        (label.disks.get(usize::from(number)) == Some(&disk)).then_some(label)
    }

    /// Byte offset of slot 0 on this disk.
    pub fn extents_start(&self) -> u64 {
        layout::MARGIN + self.journal
    }
}

/// The content of one of the four places for a label.
#[derive(Debug, PartialEq)]
pub(crate) enum DecodedLabel {
    Good(Box<Label>),
    /// A label with this format version, which is newer than [`VERSION`].
    Newer(u32),
    /// A label with a wrong checksum or invalid fields.
    Damaged,
    /// Data that is no label.
    Other,
    /// All bytes are zero.
    Blank,
}

/// Result of reading the four places for labels on a disk.
pub(crate) struct LabelSearch {
    /// The good label with the highest generation.
    pub best: Option<Label>,
    /// Format version of a label that is newer than [`VERSION`].
    pub newer: Option<u32>,
    /// Number of places whose label is damaged, cannot be read, or is missing although another place has one.
    pub damaged: u32,
    /// Whether at least one place has a label, good or not, or cannot be read.
    pub labelled: bool,
}

/// Reads the four places for labels. A disk that is too small for a pool disk is not read, and has no label.
pub(crate) fn find(device: &Device) -> LabelSearch {
    let mut found = LabelSearch { best: None, newer: None, damaged: 0, labelled: false };
    if device.size() < layout::min_disk_bytes(0) {
        return found;
    }
    let mut missing = 0;
    for offset in layout::label_offsets(device.size()) {
        let mut block = vec![0u8; BLOCK];
        let decoded = match device.read(Access::Cached, offset, &mut block) {
            Ok(()) => Label::decode(&block),
            Err(_) => DecodedLabel::Damaged,
        };
        match decoded {
            DecodedLabel::Good(label) => {
                if found.best.as_ref().is_none_or(|b| b.generation < label.generation) {
                    found.best = Some(*label);
                }
            }
            DecodedLabel::Newer(version) => found.newer = Some(version),
            DecodedLabel::Damaged => found.damaged += 1,
            DecodedLabel::Other | DecodedLabel::Blank => missing += 1,
        }
    }
    found.labelled = missing < 4;
    if found.labelled {
        found.damaged += missing;
    }
    found
}

/// Writes all four copies, so that at each moment a good one is durable: one at the start and one at the end of the
/// disk, then a sync, then the other two and a second sync.
pub(crate) fn write(device: &Device, label: &Label) -> Result<(), DiskError> {
    let block = label.encode();
    let [a, b, c, d] = layout::label_offsets(label.size);
    for places in [[a, c], [b, d]] {
        for place in places {
            device.write(Access::Cached, place, &block)?;
        }
        device.sync()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            version: VERSION,
            generation: 7,
            identity: PoolIdentity {
                pool: 1 << 100,
                node: NodeId::B,
                pair_name: "office".into(),
                node_name: "left".into(),
            },
            disk: 5,
            number: 1,
            disks: vec![4, 5],
            size: 1 << 30,
            journal: 0,
            slots: 99,
            salt: 77,
            session: 3,
            resumed: 9,
            checkpoint: 12,
            tail: JournalTail { position: 4096, record: 9, chain: 0xdead_beef, session: 2 },
            floor: 8,
        }
    }

    #[test]
    fn a_label_is_read_back_and_a_flipped_bit_is_detected() {
        let block = label().encode();
        assert_eq!(Label::decode(&block), DecodedLabel::Good(Box::new(label())));
        for bit in (0..block.len() * 8).step_by(7) {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Label::decode(&bad), DecodedLabel::Damaged | DecodedLabel::Other), "bit {bit}");
        }
        assert_eq!(Label::decode(&[0; BLOCK]), DecodedLabel::Blank);
    }

    #[test]
    fn a_label_with_the_longest_names_and_most_disks_fits_into_a_block() {
        let mut label = label();
        label.disks = (0..DISKS_MAX as u128).collect();
        label.number = 23;
        label.disk = 23;
        label.identity.pair_name = "x".repeat(NAME_MAX);
        label.identity.node_name = "y".repeat(NAME_MAX);
        assert_eq!(Label::decode(&label.encode()), DecodedLabel::Good(Box::new(label)));
    }
}
