//! Tests of each operation, one per guarantee.

use super::fixture::{TestPool, blocks, identity};
use crate::checkpoint::DELETE_EXTENTS;
use crate::sim::format_options;
use crate::{
    DiskFailed, FileDisk, FormatOptions, Inspection, MetaEntry, OpenError, OpenOptions, Pool, PoolDisk, Position,
    Progress, ReadError, StoreError, inspect,
};
use bytes::Bytes;
use dyad_types::{BLOCK, BlockIndex, Epoch, ExtentImage, ExtentIndex, ExtentSet, NodeId, Seq, Stamp, VolumeId};

#[test]
fn a_write_survives_kill_and_checkpoint_and_after_a_sync_loss_of_power() {
    let fixture = TestPool::new(1, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(7), 1000).unwrap();
    pool.write(VolumeId(7), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(10), blocks(1, 20)).unwrap();
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(10..30)).unwrap(), blocks(1, 20));
    assert!(pool.read(VolumeId(7), BlockIndex::range(30..46)).unwrap().iter().all(|b| *b == 0));
    drop(pool);
    fixture.kill();
    let mut pool = fixture.open();
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(10..30)).unwrap(), blocks(1, 20), "SIGKILL loses nothing");
    pool.sync().unwrap();
    drop(pool);
    fixture.crash();
    let mut pool = fixture.open();
    assert_eq!(
        pool.read(VolumeId(7), BlockIndex::range(10..30)).unwrap(),
        blocks(1, 20),
        "loss of power loses nothing synced"
    );
    pool.checkpoint().unwrap();
    assert_eq!(pool.usage().journal_used, 0);
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(10..30)).unwrap(), blocks(1, 20));
    pool.write(VolumeId(7), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(12), blocks(2, 1)).unwrap();
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(12..13)).unwrap(), blocks(2, 1));
    pool.discard(VolumeId(7), Stamp { epoch: Epoch(1), seq: Seq(3) }, BlockIndex::range(10..12)).unwrap();
    assert!(pool.read(VolumeId(7), BlockIndex::range(10..12)).unwrap().iter().all(|b| *b == 0));
    pool.checkpoint().unwrap();
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert!(pool.read(VolumeId(7), BlockIndex::range(10..12)).unwrap().iter().all(|b| *b == 0));
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(12..13)).unwrap(), blocks(2, 1));
    assert_eq!(pool.read(VolumeId(7), BlockIndex::range(13..30)).unwrap(), blocks(1, 20).slice(3 * BLOCK..));
    assert_eq!(pool.last(VolumeId(7)), Some(Stamp { epoch: Epoch(1), seq: Seq(3) }));
}

#[test]
fn a_sync_claims_only_what_was_written_before_it_began() {
    let fixture = TestPool::new(2, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 100).unwrap();
    let before = pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    let job = pool.begin_sync().unwrap();
    assert!(pool.begin_sync().is_none(), "one sync at a time");
    let after = pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(1), blocks(2, 1)).unwrap();
    let durable = pool.complete_sync(job.run()).unwrap();
    assert!(durable >= before && durable < after);
    assert_eq!(pool.sync().unwrap(), after);
    assert!(pool.begin_sync().is_none(), "nothing left to sync");
}

#[test]
fn bad_requests_change_nothing() {
    let fixture = TestPool::new(3, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 100).unwrap();
    let at = pool.last_position();
    assert!(matches!(pool.create_volume(VolumeId(1), 5), Err(StoreError::Exists { volume: VolumeId(1) })));
    assert!(matches!(pool.create_volume(VolumeId(2), 0), Err(StoreError::Range { .. })));
    assert!(matches!(
        pool.write(VolumeId(2), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)),
        Err(StoreError::NoVolume { volume: VolumeId(2) })
    ));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(99), blocks(1, 2)),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(u64::MAX), blocks(1, 2)),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), Bytes::from_static(&[1; 100])),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), Bytes::new()),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(
        pool.discard(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex::range(0..101)),
        Err(StoreError::Range { .. })
    ));
    assert!(matches!(pool.mark_dirty(VolumeId(1), ExtentIndex::range(6..8)), Err(StoreError::Range { .. })));
    assert!(matches!(pool.resize_volume(VolumeId(1), 99), Err(StoreError::Range { .. })));
    assert!(matches!(pool.meta_put(MetaEntry { key: &[], value: b"x" }), Err(StoreError::TooLong)));
    assert!(matches!(pool.meta_put(MetaEntry { key: b"k", value: &vec![0; 65537] }), Err(StoreError::TooLong)));
    assert!(matches!(pool.read(VolumeId(1), BlockIndex::range(0..0)), Err(ReadError::Range { .. })));
    assert!(matches!(
        pool.read(VolumeId(3), BlockIndex::range(0..1)),
        Err(ReadError::NoVolume { volume: VolumeId(3) })
    ));
    assert_eq!(pool.last_position(), at);
}

#[test]
fn metadata_survives_crash_and_checkpoint() {
    let fixture = TestPool::new(4, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mark = pool.mark_dirty(VolumeId(1), ExtentIndex::range(5..9)).unwrap();
    assert_eq!(
        pool.mark_dirty(VolumeId(1), ExtentIndex::range(6..8)).unwrap(),
        mark,
        "no second record for what is marked"
    );
    pool.clear_dirty(VolumeId(1), ExtentIndex::range(6..7)).unwrap();
    pool.meta_put(MetaEntry { key: b"name", value: b"value" }).unwrap();
    pool.meta_put(MetaEntry { key: b"gone", value: b"value" }).unwrap();
    pool.meta_delete(b"gone").unwrap();
    for (seq, block) in [(1, 0), (2, 160), (3, 320)] {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(4), seq: Seq(seq) }, BlockIndex(block), blocks(seq, 1)).unwrap();
    }
    pool.confirm(VolumeId(1), Seq(0)).unwrap();
    pool.resize_volume(VolumeId(1), 1 << 21).unwrap();
    pool.sync().unwrap();
    let check = |pool: &Pool| {
        assert_eq!(pool.dirty(VolumeId(1)).unwrap().iter().collect::<Vec<_>>(), [5, 7, 8].map(ExtentIndex));
        assert_eq!(pool.meta_get(b"name"), Some(&b"value"[..]));
        assert_eq!(pool.meta_keys().collect::<Vec<_>>(), [b"name"]);
        assert_eq!(pool.unconfirmed(VolumeId(1)).unwrap(), ExtentSet::from_iter([0, 10, 20].map(ExtentIndex)));
        assert_eq!(pool.last(VolumeId(1)), Some(Stamp { epoch: Epoch(4), seq: Seq(3) }));
        assert_eq!(pool.volume(VolumeId(1)).unwrap().blocks, 1 << 21);
    };
    check(&pool);
    drop(pool);
    fixture.crash();
    let mut pool = fixture.open();
    check(&pool);
    pool.checkpoint().unwrap();
    check(&pool);
    drop(pool);
    fixture.crash();
    let mut pool = fixture.open();
    check(&pool);
    pool.confirm(VolumeId(1), Seq(3)).unwrap();
    assert!(pool.unconfirmed(VolumeId(1)).unwrap().is_empty());
    pool.checkpoint().unwrap();
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert!(pool.unconfirmed(VolumeId(1)).unwrap().is_empty());
    assert_eq!(pool.confirmed(VolumeId(1)), Some(Seq(3)));
}

#[test]
fn a_dirty_mark_that_is_not_durable_yet_is_not_claimed() {
    let fixture = TestPool::new(5, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    pool.sync().unwrap();
    let mark = pool.mark_dirty(VolumeId(1), ExtentIndex::range(5..6)).unwrap();
    assert!(pool.durable() < mark);
    drop(pool);
    fixture.kill();
    let mut pool = fixture.open();
    let again = pool.mark_dirty(VolumeId(1), ExtentIndex::range(5..6)).unwrap();
    assert!(pool.durable() < again, "a replayed mark still needs a sync");
    assert!(pool.sync().unwrap() >= again);
}

#[test]
fn an_extent_image_makes_another_extent_equal() {
    let fixture = TestPool::new(6, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 40).unwrap();
    pool.create_volume(VolumeId(2), 40).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(17), blocks(1, 3)).unwrap();
    pool.checkpoint().unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(30), blocks(2, 4)).unwrap();
    pool.write(VolumeId(2), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(16), blocks(9, 16)).unwrap();
    for extent in 0..3 {
        let image = pool.read_extent(VolumeId(1), ExtentIndex(extent)).unwrap();
        pool.write_extent(VolumeId(2), Stamp { epoch: Epoch(1), seq: Seq(2) }, ExtentIndex(extent), &image).unwrap();
        assert_eq!(pool.read_extent(VolumeId(2), ExtentIndex(extent)).unwrap(), image);
    }
    assert_eq!(pool.read_extent(VolumeId(1), ExtentIndex(1)).unwrap().present, 0b1100_0000_0000_1110);
    assert_eq!(pool.read_extent(VolumeId(1), ExtentIndex(2)).unwrap().present, 0b11);
    assert_eq!(
        pool.read(VolumeId(1), BlockIndex::range(0..40)).unwrap(),
        pool.read(VolumeId(2), BlockIndex::range(0..40)).unwrap()
    );
    assert!(matches!(pool.read_extent(VolumeId(1), ExtentIndex(3)), Err(ReadError::Range { .. })));
    let image = ExtentImage { present: 1, bad: 0, data: Bytes::from_static(&[0; 5]) };
    assert!(matches!(
        pool.write_extent(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(3) }, ExtentIndex(0), &image),
        Err(StoreError::Range { .. })
    ));
}

#[test]
fn a_deleted_volume_gives_its_space_back() {
    let fixture = TestPool::new(7, &[32]);
    let mut pool = fixture.open();
    let empty = pool.usage();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    for i in 0..8 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 16)).unwrap();
    }
    pool.checkpoint().unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(9) }, BlockIndex(800), blocks(9, 1)).unwrap();
    assert_eq!(pool.usage().used, 9 * 65536);
    pool.delete_volume(VolumeId(1)).unwrap();
    assert!(matches!(pool.read(VolumeId(1), BlockIndex::range(0..1)), Err(ReadError::NoVolume { .. })));
    assert!(matches!(pool.create_volume(VolumeId(1), 5), Err(StoreError::Exists { .. })));
    while pool.wants_checkpoint() {
        pool.checkpoint().unwrap();
    }
    assert_eq!(pool.usage().used, empty.used);
    assert!(pool.volumes().is_empty());
    pool.create_volume(VolumeId(1), 100).unwrap();
    assert!(
        pool.read(VolumeId(1), BlockIndex::range(0..100)).unwrap().iter().all(|b| *b == 0),
        "nothing of the old volume shows"
    );
    drop(pool);
    fixture.kill();
    assert_eq!(fixture.open().volumes().len(), 1);
}

/// A volume without a record whose extents are in the index is damage: the pool would not open again.
#[test]
fn a_volume_deleted_together_with_a_large_one_is_freed_too() {
    let fixture = TestPool::with_journal(256, 7, &[1400]);
    let mut pool = fixture.open();
    let (large, small) = (VolumeId(1), VolumeId(2));
    // Exactly what one checkpoint frees, so that it has no budget left for the second volume.
    for (volume, extents) in [(large, DELETE_EXTENTS as u64), (small, 3)] {
        pool.create_volume(volume, extents * 16).unwrap();
        for extent in 0..extents {
            let stamp = Stamp { epoch: Epoch(1), seq: Seq(extent) };
            pool.write(volume, stamp, BlockIndex(extent * 16), blocks(extent, 1)).unwrap();
        }
    }
    pool.checkpoint().unwrap();
    pool.delete_volume(large).unwrap();
    pool.delete_volume(small).unwrap();
    while pool.wants_checkpoint() {
        pool.checkpoint().unwrap();
    }
    assert_eq!(pool.usage().used, 0);
    pool.close().unwrap();
    assert!(fixture.open().volumes().is_empty());
}

#[test]
fn writes_go_on_while_a_checkpoint_runs() {
    let fixture = TestPool::new(8, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    for i in 0..10 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 2)).unwrap();
    }
    pool.start_checkpoint();
    let mut steps = 0;
    loop {
        let job = pool.checkpoint_job(1).unwrap().expect("the checkpoint has a next job");
        assert!(pool.checkpoint_job(1).unwrap().is_none(), "one job at a time");
        pool.write(
            VolumeId(1),
            Stamp { epoch: Epoch(2), seq: Seq(100 + steps) },
            BlockIndex(16 * (steps % 12)),
            blocks(100 + steps, 1),
        )
        .unwrap();
        let done = job.run();
        for i in 0..10 {
            assert_eq!(
                pool.read(VolumeId(1), BlockIndex::range(i * 16 + 1..i * 16 + 1 + 1)).unwrap(),
                blocks(i, 2).slice(BLOCK..)
            );
        }
        assert_eq!(
            pool.read(VolumeId(1), BlockIndex::range(16 * (steps % 12)..16 * (steps % 12) + 1)).unwrap(),
            blocks(100 + steps, 1)
        );
        steps += 1;
        if pool.complete_checkpoint_job(done).unwrap() == Progress::Finished {
            break;
        }
    }
    assert!(steps > 10, "{steps} steps for ten extents");
    let newest: Vec<Bytes> =
        (0..12).map(|i| pool.read(VolumeId(1), BlockIndex::range(16 * i..16 * i + 1)).unwrap()).collect();
    drop(pool);
    fixture.kill();
    let pool = fixture.open();
    assert!(
        (0..12).all(|i| pool.read(VolumeId(1), BlockIndex::range(16 * i..16 * i + 1)).unwrap() == newest[i as usize])
    );
}

#[test]
fn an_idle_pool_writes_one_note_and_no_more() {
    let fixture = TestPool::new(9, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.sync().unwrap();
    let at = pool.last_position();
    assert_eq!(pool.checkpoint_step(1).unwrap(), Progress::Idle);
    assert_eq!(pool.last_position(), at, "not yet quiet");
    assert_eq!(pool.checkpoint_step(1).unwrap(), Progress::Idle);
    assert_eq!(pool.last_position(), Position(at.0 + 1), "a note records the sync");
    pool.sync().unwrap();
    (0..3).for_each(|_| assert_eq!(pool.checkpoint_step(1).unwrap(), Progress::Idle));
    assert_eq!(pool.last_position(), Position(at.0 + 1), "the sync of the note needs no further note");
}

#[test]
fn a_failed_sync_closes_the_pool() {
    let fixture = TestPool::new(10, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    fixture.disks[0].set_faults(crate::sim::Faults { sync_error: 1_000_000, ..Default::default() });
    assert!(matches!(pool.sync(), Err(StoreError::Failed { source: Some(_), .. })));
    fixture.disks[0].set_faults(Default::default());
    assert!(matches!(pool.sync(), Err(StoreError::Failed { .. })), "a sync after a failed one is not trusted");
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(0), blocks(1, 1)),
        Err(StoreError::Failed { .. })
    ));
    assert!(matches!(pool.meta_put(MetaEntry { key: b"k", value: b"v" }), Err(StoreError::Failed { .. })));
    assert!(matches!(pool.read(VolumeId(1), BlockIndex::range(0..1)), Err(ReadError::Failed { .. })));
    assert!(matches!(pool.checkpoint_job(1), Err(StoreError::Failed { .. })));
    assert_eq!(pool.usable(), Err(DiskFailed { disk: "disk-0".into() }));
}

#[test]
fn a_failed_read_does_not_close_the_pool() {
    let fixture = TestPool::new(11, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1000).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    fixture.disks[0].set_faults(crate::sim::Faults { read_error: 1_000_000, ..Default::default() });
    assert!(matches!(pool.read(VolumeId(1), BlockIndex::range(0..1)), Err(ReadError::Io { .. })));
    fixture.disks[0].set_faults(Default::default());
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(0..1)).unwrap(), blocks(1, 1));
}

#[test]
fn files_work_like_simulated_disks() {
    let dir = tempfile::tempdir().unwrap();
    let open = |i: usize| PoolDisk {
        name: format!("file-{i}"),
        device: Box::new(FileDisk::open(&dir.path().join(format!("disk-{i}"))).unwrap()),
        index: dir.path().join(format!("index-{i}")),
    };
    for i in 0..2 {
        drop(FileDisk::create(&dir.path().join(format!("disk-{i}")), 32 << 20).unwrap());
    }
    let path = dir.path().join("disk-0");
    assert_eq!(inspect(Box::new(FileDisk::open(&path).unwrap())).unwrap(), Inspection::Blank);
    let options = FormatOptions { journal_bytes: None, durable_index: true, ..format_options(identity(), 2) };
    Pool::format(vec![open(0), open(1)], &options).unwrap();
    let expected = OpenOptions { expected: (identity().pool, NodeId::A), durable_index: true };
    let (mut pool, _) = Pool::open(vec![open(1), open(0)], &expected).unwrap();
    assert!(FileDisk::open(&path).is_err(), "a disk in use is locked");
    pool.create_volume(VolumeId(1), 4000).unwrap();
    for i in 0..40 {
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 20), blocks(i, 20)).unwrap();
    }
    pool.checkpoint().unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(41) }, BlockIndex(3), blocks(41, 1)).unwrap();
    pool.close().unwrap();
    let (pool, report) = Pool::open(vec![open(0), open(1)], &expected).unwrap();
    assert_eq!(report.replayed, 1);
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(3..4)).unwrap(), blocks(41, 1));
    assert!((1..40).all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 20..i * 20 + 20)).unwrap() == blocks(i, 20)));
    drop(pool);
    let found = inspect(Box::new(FileDisk::open(&path).unwrap())).unwrap();
    assert_eq!(found, Inspection::Pool { identity: identity(), number: 0, count: 2 });
    assert!(matches!(Pool::open(vec![open(0)], &expected), Err(OpenError::DiskMissing { number: 1, count: 2 })));
}
