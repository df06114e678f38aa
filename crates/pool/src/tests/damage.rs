//! Tests with flipped bits, truncations and old copies in labels, journal, index and extents: each is detected and
//! reported, and damaged data is never returned.

use super::fixture::{TestPool, blocks};
use crate::index::key;
use crate::layout::{MARGIN, label_offsets};
use crate::{DiskFailed, MetaEntry, OpenError, Pool, ReadError, StoreError};
use dyad_testkit::Prng;
use dyad_types::{BLOCK, BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};
use std::fs;

/// A pool with 20 extents in the index and 10 newer writes in the journal, closed without loss.
fn closed_pool() -> TestPool {
    let fixture = TestPool::new(1, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    pool.meta_put(MetaEntry { key: b"name", value: &[7; 9000] }).unwrap();
    for i in 0..20 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 16)).unwrap();
    }
    pool.checkpoint().unwrap();
    for i in 0..10 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(20 + i) }, BlockIndex(i * 32 + 3), blocks(20 + i, 2))
            .unwrap();
    }
    pool.close().unwrap();
    fixture
}

/// The right content of a block of [`closed_pool`].
fn expected(block: u64) -> Vec<u8> {
    let (extent, inside) = (block / 16, block % 16);
    let newer = extent % 2 == 0 && (inside == 3 || inside == 4);
    let (tag, at) = if newer { (20 + extent / 2, inside - 3) } else { (extent, inside) };
    blocks(tag, at as usize + 1)[at as usize * BLOCK..].to_vec()
}

/// Reads all blocks; each read returns the right content or an error. Returns the numbers of the corrupt blocks.
fn all_corrupt_blocks(pool: &Pool) -> Vec<u64> {
    let mut bad = Vec::new();
    for extent in 0..20 {
        let whole: Vec<u8> = (0..16).map(|i| expected(extent * 16 + i)).collect::<Vec<_>>().concat();
        if pool
            .read(VolumeId(1), BlockIndex::range(extent * 16..extent * 16 + 16))
            .is_ok_and(|data| data[..] == whole[..])
        {
            continue;
        }
        bad.extend(corrupt_blocks_of_extent(pool, extent * 16));
    }
    bad
}

/// The same for the blocks of one extent, read one by one.
fn corrupt_blocks_of_extent(pool: &Pool, first: u64) -> Vec<u64> {
    let mut bad = Vec::new();
    for block in first..first + 16 {
        match pool.read(VolumeId(1), BlockIndex::range(block..block + 1)) {
            Ok(data) => assert!(data[..] == expected(block)[..], "block {block} is silently wrong"),
            Err(ReadError::Corrupt { volume: VolumeId(1), blocks }) => bad.extend(blocks.iter().map(|block| block.0)),
            Err(ReadError::IndexDamaged { .. }) => bad.push(block),
            Err(e) => panic!("{e}"),
        }
    }
    bad
}

#[test]
fn a_pool_without_damage_has_no_corrupt_block() {
    let pool = closed_pool().open();
    assert!(all_corrupt_blocks(&pool).is_empty());
    assert_eq!(pool.usage().corrupt_blocks, 0);
}

#[test]
fn a_flipped_bit_in_an_extent_damages_one_block_until_it_is_written() {
    let fixture = closed_pool();
    let start = MARGIN + (4 << 20);
    let mut random = Prng::new(1);
    for _ in 0..20 {
        let offset = start + random.below(20 * 65536);
        fixture.disks[0].flip_bit(offset, random.below(8) as u8);
        let mut pool = fixture.open();
        let bad = all_corrupt_blocks(&pool);
        assert!(bad.len() <= 1, "one flip damages at most one block");
        if let Some(block) = bad.first() {
            let all = pool.read(VolumeId(1), BlockIndex::range(block / 16 * 16..block / 16 * 16 + 16)).unwrap_err();
            assert!(matches!(all, ReadError::Corrupt { blocks, .. } if blocks == [BlockIndex(*block)]));
            pool.write(
                VolumeId(1),
                Stamp { epoch: Epoch(2), seq: Seq(100) },
                BlockIndex(*block),
                expected(*block).into(),
            )
            .unwrap();
            assert!(all_corrupt_blocks(&pool).is_empty(), "a write repairs the block");
            pool.checkpoint().unwrap();
            assert!(all_corrupt_blocks(&pool).is_empty());
        } else {
            fixture.disks[0].flip_bit(offset, 0);
        }
        pool.close().unwrap();
        if bad.is_empty() {
            return;
        }
    }
}

#[test]
fn good_blocks_at_each_others_place_are_corrupt() {
    let fixture = closed_pool();
    let first = MARGIN + (4 << 20);
    let (a, b) = (fixture.disks[0].peek(first, BLOCK), fixture.disks[0].peek(first + 65536, BLOCK));
    fixture.disks[0].poke(first, &b);
    fixture.disks[0].poke(first + 65536, &a);
    assert_eq!(all_corrupt_blocks(&fixture.open()), [0, 16], "good data in the wrong place is corrupt");
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused_or_damages_one_block() {
    let mut random = Prng::new(2);
    let (mut refused, mut corrupt_blocks) = (0, 0);
    for _ in 0..60 {
        let fixture = closed_pool();
        let (from, to) = {
            let pool = fixture.open();
            (pool.label.tail.position, pool.journal.end().position)
        };
        fixture.disks[0].flip_bit(MARGIN + from + random.below(to - from), random.below(8) as u8);
        match fixture.try_open() {
            Err(OpenError::JournalDamaged { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
            Ok((mut pool, report)) => {
                assert_eq!(report.corrupt_blocks, 1, "a flip in a durable record is reported");
                let bad = all_corrupt_blocks(&pool);
                assert_eq!(bad.len(), 1);
                pool.checkpoint().unwrap();
                assert_eq!(all_corrupt_blocks(&pool), bad, "a checkpoint does not make the block good");
                assert_eq!(pool.usage().corrupt_blocks, 1, "the checkpoint does not count the block again");
                corrupt_blocks += 1;
            }
        }
    }
    assert!(refused > 5 && corrupt_blocks > 5, "{refused} heads, {corrupt_blocks} blocks");
}

#[test]
fn a_journal_whose_end_is_zeros_is_refused() {
    for part in 0..4 {
        let fixture = closed_pool();
        let (from, to) = {
            let pool = fixture.open();
            (pool.label.tail.position, pool.journal.end().position)
        };
        let at = MARGIN + from + (to - from) / 4 / 4096 * 4096 * part;
        fixture.disks[0].poke(at, &vec![0; (MARGIN + to - at) as usize]);
        let refused = fixture.try_open().err().expect("must be refused");
        assert!(matches!(refused, OpenError::JournalDamaged { .. }), "{refused}");
    }
}

/// The pool is not closed, so only later records can prove that a record was durable.
#[test]
fn damage_to_a_durable_record_is_told_from_a_torn_end() {
    let fixture = TestPool::new(3, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    let first = pool.journal.end().position;
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    pool.sync().unwrap();
    let last = pool.journal.end().position;
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(1), blocks(2, 1)).unwrap();
    drop(pool);
    fixture.kill();
    fixture.disks[0].flip_bit(MARGIN + last + 5000, 0);
    let (pool, report) = fixture.try_open().unwrap();
    assert_eq!(report.corrupt_blocks, 0, "the last record was never durable: a torn end");
    assert!(pool.read(VolumeId(1), BlockIndex::range(1..2)).unwrap().iter().all(|b| *b == 0));
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(0..1)).unwrap(), blocks(1, 1));
    drop(pool);

    let fixture = TestPool::new(3, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    pool.sync().unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(1), blocks(2, 1)).unwrap();
    drop(pool);
    fixture.kill();
    fixture.disks[0].flip_bit(MARGIN + first + 100, 0);
    let refused = fixture.try_open().err().expect("must be refused");
    assert!(refused.to_string().contains("proves that it was durable"), "{refused}");
}

/// Records after a torn end are lost. They must not become valid again when the journal grows over them.
#[test]
fn records_after_a_torn_end_do_not_come_back() {
    let fixture = TestPool::new(4, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.sync().unwrap();
    let at = pool.journal.end().position;
    for i in 0..5 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i), blocks(i, 1)).unwrap();
    }
    drop(pool);
    fixture.kill();
    fixture.disks[0].flip_bit(MARGIN + at + 50, 0);
    let mut pool = fixture.open();
    assert!(pool.read(VolumeId(1), BlockIndex::range(0..5)).unwrap().iter().all(|b| *b == 0));
    pool.write(VolumeId(1), Stamp { epoch: Epoch(2), seq: Seq(9) }, BlockIndex(100), blocks(9, 1)).unwrap();
    pool.sync().unwrap();
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(100..101)).unwrap(), blocks(9, 1));
    assert!(
        pool.read(VolumeId(1), BlockIndex::range(0..5)).unwrap().iter().all(|b| *b == 0),
        "old records do not come back"
    );
}

/// A torn record must not be completed by the sectors of a later record at the same place (found by seed 490).
#[test]
fn a_torn_record_does_not_come_back() {
    let fixture = TestPool::new(4, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    pool.sync().unwrap();
    let at = MARGIN + pool.journal.end().position;
    pool.discard(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex::range(0..1)).unwrap();
    drop(pool);
    fixture.kill();
    let lost = fixture.disks[0].peek(at, 512);
    fixture.disks[0].poke(at + 512, &[0xee; 512]);
    let mut pool = fixture.open();
    assert_eq!(
        pool.read(VolumeId(1), BlockIndex::range(0..1)).unwrap(),
        blocks(1, 1),
        "the discard was torn, so it never happened"
    );
    pool.meta_put(MetaEntry { key: b"k", value: b"v" }).unwrap();
    drop(pool);
    fixture.kill();
    fixture.disks[0].poke(at, &lost);
    let pool = fixture.open();
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(0..1)).unwrap(), blocks(1, 1), "and it does not happen later");
    assert_eq!(pool.last(VolumeId(1)), Some(Stamp { epoch: Epoch(1), seq: Seq(1) }));
}

#[test]
fn three_damaged_labels_are_repaired_and_missing_or_old_ones_refused() {
    let mut random = Prng::new(5);
    let fixture = closed_pool();
    let places = label_offsets(12 << 20);
    for spared in 0..4 {
        for place in places.iter().enumerate().filter(|(i, _)| *i != spared).map(|(_, p)| p) {
            fixture.disks[0].flip_bit(place + random.below(4096), random.below(8) as u8);
        }
        let (pool, report) = fixture.try_open().unwrap();
        assert_eq!(report.repaired_labels, 3);
        assert!(all_corrupt_blocks(&pool).is_empty());
    }
    let (_, report) = fixture.try_open().unwrap();
    assert_eq!(report.repaired_labels, 0);
    let saved: Vec<Vec<u8>> = places.iter().map(|p| fixture.disks[0].peek(*p, 4096)).collect();
    places.iter().for_each(|p| fixture.disks[0].flip_bit(p + 100, 0));
    assert!(matches!(fixture.try_open().err(), Some(OpenError::LabelDamaged { .. })));
    places.iter().for_each(|p| fixture.disks[0].poke(*p, &[0; 4096]));
    assert!(matches!(fixture.try_open().err(), Some(OpenError::NoLabel { .. })));
    places.iter().zip(&saved).for_each(|(p, old)| fixture.disks[0].poke(*p, old));
    let mut pool = fixture.open();
    // With the old labels written back, the indexes are of a later checkpoint than the labels.
    for i in 0..3 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(3), seq: Seq(200 + i) }, BlockIndex(0), blocks(i, 1)).unwrap();
        pool.checkpoint().unwrap();
    }
    drop(pool);
    places.iter().zip(&saved).for_each(|(p, old)| fixture.disks[0].poke(*p, old));
    let refused = fixture.try_open().err().expect("must be refused");
    assert!(matches!(refused, OpenError::IndexDamaged { .. }), "{refused}");
}

#[test]
fn a_flipped_bit_in_the_index_is_refused_or_changes_nothing() {
    let fixture = closed_pool();
    let file = fixture.index(0).join("data.mdb");
    let whole = fs::read(&file).unwrap();
    let mut random = Prng::new(6);
    let mut refused = 0;
    for _ in 0..400 {
        let mut bad = whole.clone();
        bad[random.below(whole.len() as u64) as usize] ^= 1 << random.below(8);
        fs::write(&file, &bad).unwrap();
        match fixture.try_open() {
            Ok((pool, _)) => assert!(all_corrupt_blocks(&pool).is_empty(), "an index that opens is right"),
            Err(OpenError::IndexDamaged { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(refused > 50, "only {refused} of 400 flips were in live data");
}

#[test]
fn an_index_that_is_cut_short_missing_old_or_of_another_disk_is_refused() {
    let fixture = closed_pool();
    let file = fixture.index(0).join("data.mdb");
    let whole = fs::read(&file).unwrap();
    let refused = |what: &str| {
        let error = fixture.try_open().err().expect("must be refused");
        assert!(matches!(&error, OpenError::IndexDamaged { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error} does not say {what}");
    };
    for len in [0, 100, 4096, 8192, whole.len() - 4096, whole.len() - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        refused("cut short");
    }
    fs::remove_file(&file).unwrap();
    refused("missing");
    fs::write(&file, &whole).unwrap();
    let mut pool = fixture.open();
    for i in 0..2 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(3), seq: Seq(300 + i) }, BlockIndex(0), blocks(i, 1)).unwrap();
        pool.checkpoint().unwrap();
    }
    drop(pool);
    fs::write(&file, &whole).unwrap();
    refused("checkpoint");
    let two = TestPool::new(9, &[10, 10]);
    drop(two.open());
    fs::copy(two.index(1).join("data.mdb"), two.index(0).join("data.mdb")).unwrap();
    let error = two.try_open().err().expect("must be refused");
    assert!(error.to_string().contains("another disk"), "{error}");
}

/// Power can be lost when the headers of many records are on the disk and their data is not: 2,000 writes of one block fit
/// into the journal between two syncs.
#[test]
fn any_number_of_torn_records_that_were_never_synced_is_the_end_of_the_journal() {
    let fixture = TestPool::with_journal(32, 10, &[48]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let write = |pool: &mut Pool, number: u64| {
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(number) };
        pool.write(VolumeId(1), stamp, BlockIndex(number), blocks(number + 1, 1)).unwrap();
        pool.journal.end().position
    };
    write(&mut pool, 0);
    pool.sync().unwrap();
    for number in 1..=1500 {
        let end = write(&mut pool, number);
        fixture.disks[0].poke(MARGIN + end - BLOCK as u64, &[0; BLOCK]);
    }
    drop(pool);
    fixture.kill();
    let (pool, report) = fixture.try_open().unwrap();
    assert_eq!(report.corrupt_blocks, 0, "no durable record is damaged");
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(0..1)).unwrap(), blocks(1, 1));
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(1..2)).unwrap(), vec![0; BLOCK], "never written");
}

#[test]
fn a_journal_in_which_many_durable_records_are_damaged_is_refused() {
    for (damaged, refused) in [(1024, false), (1025, true)] {
        let fixture = TestPool::with_journal(32, 11, &[48]);
        let mut pool = fixture.open();
        pool.create_volume(VolumeId(1), 1 << 20).unwrap();
        for number in 0..damaged {
            let stamp = Stamp { epoch: Epoch(1), seq: Seq(number) };
            pool.write(VolumeId(1), stamp, BlockIndex(number), blocks(number + 1, 1)).unwrap();
            let end = pool.journal.end().position;
            fixture.disks[0].poke(MARGIN + end - BLOCK as u64, &[0; BLOCK]);
        }
        pool.sync().unwrap();
        // The next record says that all before it were durable.
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(damaged) };
        pool.write(VolumeId(1), stamp, BlockIndex(damaged), blocks(0, 1)).unwrap();
        drop(pool);
        fixture.kill();
        match fixture.try_open() {
            Ok((_, report)) => assert_eq!((report.corrupt_blocks, refused), (damaged, false)),
            Err(OpenError::JournalDamaged { .. }) => assert!(refused, "{damaged} are read as damaged blocks"),
            Err(e) => panic!("{e}"),
        }
    }
}

/// If a checkpoint cannot continue, the pool is closed: otherwise every writer would wait for room in the journal
/// without an error.
#[test]
fn an_index_that_is_damaged_while_the_pool_is_open_closes_the_pool() {
    let fixture = closed_pool();
    let mut pool = fixture.open();
    let (birth, _) = pool.indexes[0].extent(VolumeId(1), ExtentIndex(0)).unwrap().unwrap();
    let (device, number) = (pool.devices[0].clone(), pool.indexes[0].checkpoint());
    pool.indexes[0].commit(&device, number, &vec![(key::extent(VolumeId(1), ExtentIndex(0), birth), None)]).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(3), seq: Seq(100) }, BlockIndex(0), blocks(9, 1)).unwrap();
    assert!(matches!(pool.checkpoint(), Err(StoreError::IndexDamaged { .. })));
    assert_eq!(pool.usable(), Err(DiskFailed { disk: "disk-0".into() }));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(3), seq: Seq(101) }, BlockIndex(0), blocks(9, 1)),
        Err(StoreError::Failed { .. })
    ));
    assert!(matches!(pool.sync(), Err(StoreError::Failed { .. })));
}
