//! Checksums of the bytes of format 1. If a test fails, the format has changed: it needs a new version, and version 1
//! must still be read.

use crate::birth::Birth;
use crate::checksum;
use crate::index::key;
use crate::index::row::{ExtentRow, IndexRoot, VolumeRow, seal};
use crate::journal::record::{JournalRecord, RecordHeader, encode};
use crate::label::{self, DecodedLabel, JournalTail, Label};
use dyad_types::{BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};

fn label() -> Label {
    Label {
        version: label::FIRST_VERSION,
        generation: 1,
        identity: super::fixture::identity(),
        disk: 2,
        number: 0,
        disks: vec![2, 3],
        size: 1 << 30,
        journal: 4 << 20,
        slots: 5,
        salt: 6,
        session: 7,
        resumed: 9,
        checkpoint: 8,
        tail: JournalTail { position: 9, record: 10, chain: 11, session: 12 },
        floor: 13,
    }
}

#[test]
fn the_bytes_of_format_1_are_unchanged() {
    assert_eq!(checksum::plain(&label().encode()[..4092]), 0x9f0e_3718);
    let write = JournalRecord::Write {
        volume: VolumeId(1),
        stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
        block: BlockIndex(4),
        birth: Birth(0),
        crcs: vec![5, 6],
    };
    let header = RecordHeader { salt: 1, record: 2, session: 3, synced: 4, position: 8192, chain: 5, data_blocks: 2 };
    assert_eq!(encode(&header, &write).1, 0xa406_d578);
    let meta = JournalRecord::Meta { key: b"name".to_vec(), value: Some(b"value".to_vec()) };
    assert_eq!(encode(&RecordHeader { data_blocks: 0, ..header }, &meta).1, 0x9efa_6797);
    let extent = ExtentRow { slot: 1, present: 2, crcs: [3; 16], last: Stamp { epoch: Epoch(4), seq: Seq(5) } };
    assert_eq!(seal(&key::extent(VolumeId(1), ExtentIndex(2), Birth(3)), extent.encode()).1, 0x1b79_95e2);
    let volume = VolumeRow {
        blocks: 1,
        birth: Birth(2),
        last: Stamp { epoch: Epoch(3), seq: Seq(4) },
        confirmed: Seq(5),
        unconfirmed_highest: Seq(6),
        deleting: true,
    };
    assert_eq!(seal(&key::volume(VolumeId(1)), volume.encode()).1, 0x3ed5_cdb3);
    let root = IndexRoot { disk: 1, checkpoint: 2, count: 3, sum: 4 };
    assert_eq!(checksum::plain(&root.encode()), 0x6e3f_1bf4);
    assert_eq!(checksum::block(VolumeId(1), BlockIndex(2), Birth(3), &[4; 4096]), 0x201b_d15b);
}

/// Format 2 has one more journal record, and the version in the label of a pool that holds it.
#[test]
fn the_bytes_of_format_2_are_unchanged() {
    let label = Label { version: label::VERSION, ..label() };
    let lost = JournalRecord::MarkLost {
        volume: VolumeId(1),
        stamp: Stamp { epoch: Epoch(2), seq: Seq(3) },
        extent: ExtentIndex(4),
        blocks: 5,
    };
    let header = RecordHeader { salt: 1, record: 2, session: 3, synced: 4, position: 8192, chain: 5, data_blocks: 0 };
    let sums = [
        checksum::plain(&label.encode()[..4092]),
        encode(&header, &lost).1,
        checksum::lost_block(VolumeId(1), BlockIndex(2), Birth(0)),
    ];
    assert_eq!(sums, [0x0ab8_6c0c, 0xbbd8_6b39, 0x5a61_304c]);
}

#[test]
fn a_newer_label_is_refused_by_its_version() {
    let mut block = label().encode();
    block[8] = 3;
    let body = block.len() - 4;
    let crc = checksum::plain(&block[..body]);
    block[body..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Label::decode(&block), DecodedLabel::Newer(3));

    let fixture = super::fixture::TestPool::new(1, &[10]);
    for place in crate::layout::label_offsets(10 << 20) {
        fixture.disks[0].poke(place, &block);
    }
    let refused = fixture.try_open().err().expect("must be refused");
    assert!(refused.to_string().contains("format 3"), "{refused}");
}
