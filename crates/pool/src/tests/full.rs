//! Tests with a full pool, journal or overlay: operations are refused without loss, and a checkpoint makes room.

use super::fixture::{TestPool, blocks};
use crate::birth::Birth;
use crate::{MetaEntry, OVERLAY_LIMIT, StoreError};
use dyad_types::{BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};

#[test]
fn a_full_pool_refuses_new_extents_until_space_is_freed() {
    let fixture = TestPool::new(1, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mut written = Vec::new();
    for i in 0.. {
        match pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(i) }, BlockIndex(i * 16), blocks(i, 1)) {
            Ok(_) => written.push(i),
            Err(StoreError::NoSpace) => break,
            Err(StoreError::JournalFull) => pool.checkpoint().unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
    let usage = pool.usage();
    assert!(usage.available == 0 && usage.reserve > 0, "{usage:?}");
    let check = |pool: &crate::Pool| {
        written.iter().all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 16..i * 16 + 1)).unwrap() == blocks(*i, 1))
    };
    assert!(check(&pool));
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(999) }, BlockIndex(1), blocks(999, 15)).unwrap();
    pool.meta_put(MetaEntry { key: b"still", value: b"works" }).unwrap();
    pool.mark_dirty(VolumeId(1), ExtentIndex::range(0..1)).unwrap();
    pool.checkpoint().unwrap();
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1000) }, BlockIndex(1 << 19), blocks(1, 1)),
        Err(StoreError::NoSpace)
    ));
    pool.close().unwrap();
    let mut pool = fixture.open();
    assert!(check(&pool));
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1000) }, BlockIndex(1 << 19), blocks(1, 1)),
        Err(StoreError::NoSpace)
    ));
    pool.discard(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1001) }, BlockIndex::range(16..32)).unwrap();
    assert!(
        matches!(
            pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1000) }, BlockIndex(1 << 19), blocks(1, 1)),
            Err(StoreError::NoSpace)
        ),
        "not before a checkpoint"
    );
    assert!(pool.wants_checkpoint(), "after the refusal");
    pool.checkpoint().unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1002) }, BlockIndex(1 << 19), blocks(5, 1)).unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(1 << 19..(1 << 19) + 1)).unwrap(), blocks(5, 1));
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(1..16)).unwrap(), blocks(999, 15));
}

/// A reconciliation must end on a full pool: the deletions that make room wait for it.
#[test]
fn the_reserve_takes_new_extents_of_a_full_pool() {
    let fixture = TestPool::new(1, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let stamp = Stamp { epoch: Epoch(1), seq: Seq(1) };
    let mut next = 0;
    while pool.usage().available > 0 {
        pool.write(VolumeId(1), stamp, BlockIndex(next * 16), blocks(next, 1)).unwrap();
        next += 1;
    }
    let full = next;
    let refused = loop {
        match pool.write_from_reserve(VolumeId(1), stamp, BlockIndex(next * 16), blocks(next, 1)) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace), "{refused}");
    assert_eq!((next - full) << 16, pool.usage().reserve);
    pool.checkpoint().unwrap();
    pool.delete_volume(VolumeId(1)).unwrap();
    pool.checkpoint().unwrap();
    pool.checkpoint().unwrap();
    assert_eq!(pool.usage().used, 0);
}

#[test]
fn a_full_journal_refuses_writes_until_a_checkpoint_finishes() {
    let fixture = TestPool::new(2, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mut count = 0;
    let refused = loop {
        match pool.write(
            VolumeId(1),
            Stamp { epoch: Epoch(1), seq: Seq(count) },
            BlockIndex(count * 40),
            blocks(count, 40),
        ) {
            Ok(_) => count += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, StoreError::JournalFull));
    assert!(pool.wants_checkpoint());
    assert!(
        (1..count).all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 40..i * 40 + 40)).unwrap() == blocks(i, 40))
    );
    pool.discard(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(count) }, BlockIndex::range(0..40)).unwrap();
    pool.meta_put(MetaEntry { key: b"still", value: b"works" }).unwrap();
    pool.start_checkpoint();
    while pool.checkpoint_step(50).unwrap() != crate::Progress::Finished {
        let early =
            pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(count + 1) }, BlockIndex(0), blocks(77, 40));
        assert!(matches!(early, Err(StoreError::JournalFull)), "the tail moves only when all is durable");
    }
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(count + 1) }, BlockIndex(0), blocks(77, 40)).unwrap();
    drop(pool);
    fixture.kill();
    let pool = fixture.open();
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(0..40)).unwrap(), blocks(77, 40));
    assert!(
        (1..count).all(|i| pool.read(VolumeId(1), BlockIndex::range(i * 40..i * 40 + 40)).unwrap() == blocks(i, 40))
    );
}

/// Each step takes long on a slow disk, and a whole checkpoint takes hundreds of them.
#[test]
fn a_writer_that_is_faster_than_the_checkpoint_never_waits_for_all_of_it() {
    let fixture = TestPool::new(6, &[64]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mut count = 0;
    let mut write_one = |pool: &mut crate::Pool| {
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(count) };
        match pool.write(VolumeId(1), stamp, BlockIndex(count % 400 * 16), blocks(count, 1)) {
            Ok(_) => count += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    };
    let (mut steps, mut refused, mut longest, mut checkpoints) = (0, 0, 0, 0);
    while checkpoints < 4 {
        let mut accepted = 0;
        loop {
            match write_one(&mut pool) {
                Ok(()) if pool.wants_checkpoint() && pool.running_checkpoint.is_none() => break,
                Ok(()) => accepted += 1,
                Err(error) => break assert!(matches!(error, StoreError::JournalFull), "{error}"),
            }
        }
        refused = if accepted > 0 || pool.running_checkpoint.is_none() { 0 } else { refused + 1 };
        longest = longest.max(refused);
        steps += 1;
        checkpoints += u32::from(pool.checkpoint_step(2).unwrap() == crate::Progress::Finished);
    }
    assert!(steps > 300, "{steps} steps");
    assert!(longest <= 4, "a write waited for {longest} of {steps} steps");
    pool.checkpoint().unwrap();
    (count - 400..count).for_each(|seq| {
        let block = BlockIndex(seq % 400 * 16);
        assert_eq!(pool.read(VolumeId(1), block.run(1)).unwrap(), blocks(seq, 1));
    });
}

/// One step must not take longer than a slow disk may be silent, and a sync of a guest must not wait for all copies.
#[test]
fn a_checkpoint_syncs_and_commits_in_pieces() {
    let fixture = TestPool::new(8, &[64]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    for extent in 0..128 {
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(extent) };
        pool.write(VolumeId(1), stamp, BlockIndex(extent * 16), blocks(extent, 1)).unwrap();
    }
    pool.start_checkpoint();
    let mut steps = 1;
    while pool.checkpoint_step(2).unwrap() != crate::Progress::Finished {
        steps += 1;
    }
    // The journal's sync; 64 jobs of 2 extents with a sync after each 16 extents, the last of them before the commit; 4
    // transactions of 32 records; the label.
    assert_eq!(steps, 1 + 64 + 8 + 1 + 4 + 1);
}

#[test]
fn each_write_reads_back_at_once_while_the_journal_wraps() {
    let fixture = TestPool::new(3, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 4096).unwrap();
    for i in 0..300u64 {
        let count = 1 + (i * 7 % 60);
        while let Err(e) = pool.write(
            VolumeId(1),
            Stamp { epoch: Epoch(1), seq: Seq(i) },
            BlockIndex(i * 13 % 4000),
            blocks(i, count as usize),
        ) {
            assert!(matches!(e, StoreError::JournalFull), "{e}");
            pool.checkpoint_step(8).unwrap();
        }
        if pool.wants_checkpoint() {
            pool.checkpoint_step(8).unwrap();
        }
        assert_eq!(
            pool.read(VolumeId(1), BlockIndex::range(i * 13 % 4000..i * 13 % 4000 + count)).unwrap(),
            blocks(i, count as usize)
        );
        if i % 50 == 49 {
            drop(pool);
            fixture.kill();
            pool = fixture.open();
        }
    }
    assert!(pool.journal.end().position > 4 * pool.journal.ring.len, "it wrapped");
}

#[test]
fn a_full_overlay_refuses_writes_and_still_takes_a_discard() {
    let fixture = TestPool::new(4, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(1) }, BlockIndex(0), blocks(1, 1)).unwrap();
    for extent in 1..OVERLAY_LIMIT as u64 {
        pool.active.record_discard((VolumeId(9), ExtentIndex(extent)), 1, Stamp::default(), Birth(0));
    }
    assert!(matches!(
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(0), blocks(1, 1)),
        Err(StoreError::JournalFull)
    ));
    pool.discard(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex::range(0..1)).unwrap();
}

/// After a failed checkpoint nothing makes room any more: an answer that says "wait for room" would hold the guest for ever.
#[test]
fn a_full_overlay_after_a_failed_checkpoint_answers_that_the_disk_failed() {
    let fixture = TestPool::new(4, &[32]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let stamp = |n| Stamp { epoch: Epoch(1), seq: Seq(n) };
    pool.write(VolumeId(1), stamp(1), BlockIndex(0), blocks(1, 1)).unwrap();
    fixture.disks[0].set_faults(crate::sim::Faults { sync_error: 1_000_000, ..Default::default() });
    assert!(matches!(pool.checkpoint(), Err(StoreError::Failed { .. })));
    for extent in 1..2 * OVERLAY_LIMIT as u64 {
        pool.active.record_discard((VolumeId(9), ExtentIndex(extent)), 1, Stamp::default(), Birth(0));
    }
    pool.operation_refused = false;
    let written = pool.write(VolumeId(1), stamp(2), BlockIndex(0), blocks(1, 1));
    assert!(matches!(written, Err(StoreError::Failed { .. })), "{written:?}");
    let discarded = pool.discard(VolumeId(1), stamp(3), BlockIndex::range(0..1));
    assert!(matches!(discarded, Err(StoreError::Failed { .. })), "{discarded:?}");
    assert!(!pool.operation_refused, "no checkpoint is wanted");
}

/// The same for a write that finds no free slot.
#[test]
fn a_full_pool_after_a_failed_disk_answers_that_the_disk_failed() {
    let fixture = TestPool::new(5, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mut extent = 0;
    let mut write_one = |pool: &mut crate::Pool| {
        extent += 1;
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(extent) };
        pool.write(VolumeId(1), stamp, BlockIndex(extent * 16), blocks(extent, 1))
    };
    let refused = loop {
        if let Err(error) = write_one(&mut pool) {
            break error;
        }
    };
    assert!(matches!(refused, StoreError::NoSpace), "{refused}");
    fixture.disks[0].set_faults(crate::sim::Faults { sync_error: 1_000_000, ..Default::default() });
    pool.sync().unwrap_err();
    let refused = write_one(&mut pool);
    assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
}

/// A write to a stored extent reserves no new slot, so the running checkpoint must not free the old slot.
#[test]
fn a_slot_that_a_newer_write_relies_on_is_not_freed() {
    let fixture = TestPool::new(5, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let mut extent = 0;
    while pool
        .write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(extent) }, BlockIndex(extent * 16), blocks(extent, 1))
        .is_ok()
    {
        extent += 1;
    }
    pool.checkpoint().unwrap();
    assert_eq!(pool.usage().available, 0);
    pool.discard(VolumeId(1), Stamp { epoch: Epoch(2), seq: Seq(1) }, BlockIndex::range(16..32)).unwrap();
    pool.start_checkpoint();
    pool.write(VolumeId(1), Stamp { epoch: Epoch(2), seq: Seq(2) }, BlockIndex(17), blocks(7, 1)).unwrap();
    while pool.checkpoint_step(50).unwrap() != crate::Progress::Finished {}
    assert!(
        matches!(
            pool.write(VolumeId(1), Stamp { epoch: Epoch(2), seq: Seq(3) }, BlockIndex(1 << 19), blocks(8, 1)),
            Err(StoreError::NoSpace)
        ),
        "the slot is not free"
    );
    pool.checkpoint().unwrap();
    assert_eq!(pool.usage().available, 0, "the write is in the slot of the discarded block");
    assert_eq!(pool.space.free(), pool.space.held_back(), "and took no slot that is held back");
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(17..18)).unwrap(), blocks(7, 1));
}

/// The checkpoint that removes the extent frees its slot, so a write that comes before its end needs another one.
#[test]
fn a_write_to_an_extent_that_is_being_removed_reserves_a_slot() {
    let fixture = TestPool::new(6, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VolumeId(1), 1 << 20).unwrap();
    let stamp = |n| Stamp { epoch: Epoch(1), seq: Seq(n) };
    pool.write(VolumeId(1), stamp(1), BlockIndex(0), blocks(1, 16)).unwrap();
    pool.checkpoint().unwrap();
    pool.discard(VolumeId(1), stamp(2), BlockIndex::range(0..16)).unwrap();
    pool.start_checkpoint();
    let removed = (VolumeId(1), ExtentIndex(0));
    while !pool.frozen_change(removed).is_some_and(|change| change.removing) {
        assert_eq!(pool.checkpoint_step(1).unwrap(), crate::Progress::More);
    }
    pool.write(VolumeId(1), stamp(3), BlockIndex(5), blocks(3, 1)).unwrap();
    while pool.checkpoint_step(1).unwrap() != crate::Progress::Finished {}
    let mut extent = 1;
    while pool.write_from_reserve(VolumeId(1), stamp(4), BlockIndex(extent * 16), blocks(extent, 1)).is_ok() {
        extent += 1;
    }
    pool.checkpoint().unwrap();
    assert_eq!((pool.space.free(), pool.space.reserved()), (0, 0), "each write got a slot");
    assert_eq!(pool.read(VolumeId(1), BlockIndex::range(5..6)).unwrap(), blocks(3, 1));
}
