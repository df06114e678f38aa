//! Tests of blocks that are marked as lost.

use super::fixture::{TestPool, blocks};
use crate::label;
use crate::sim::Faults;
use crate::{Pool, ReadError, StoreError};
use dyad_types::{BLOCK, BlockIndex, Epoch, ExtentIndex, Seq, Stamp, VolumeId};

const VOLUME: VolumeId = VolumeId(1);

fn stamp(seq: u64) -> Stamp {
    Stamp { epoch: Epoch(1), seq: Seq(seq) }
}

/// A pool with a volume of 40 blocks, all written and in their extents.
fn fixture() -> (TestPool, Pool) {
    let fixture = TestPool::new(1, &[12]);
    let mut pool = fixture.open();
    pool.create_volume(VOLUME, 40).unwrap();
    pool.write(VOLUME, stamp(1), BlockIndex(0), blocks(1, 40)).unwrap();
    pool.checkpoint().unwrap();
    (fixture, pool)
}

/// The blocks of the volume whose read fails.
fn unreadable(pool: &Pool) -> Vec<u64> {
    match pool.read(VOLUME, BlockIndex::range(0..40)) {
        Ok(_) => Vec::new(),
        Err(ReadError::Corrupt { blocks, .. }) => blocks.iter().map(|block| block.0).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lost_block_stays_unreadable_over_restarts_and_checkpoints_until_it_is_written() {
    let (fixture, mut pool) = fixture();
    pool.mark_lost(VOLUME, stamp(2), ExtentIndex(1), 0b1001).unwrap();
    assert_eq!(unreadable(&pool), [16, 19]);
    assert_eq!(pool.read(VOLUME, BlockIndex::range(17..19)).unwrap(), blocks(1, 40).slice(17 * BLOCK..19 * BLOCK));
    assert!(pool.unconfirmed(VOLUME).unwrap().contains(ExtentIndex(1)), "the next reconciliation compares the extent");
    drop(pool);
    fixture.kill();
    let mut pool = fixture.open();
    assert_eq!(unreadable(&pool), [16, 19], "after SIGKILL");
    pool.sync().unwrap();
    drop(pool);
    fixture.crash();
    let mut pool = fixture.open();
    assert_eq!(unreadable(&pool), [16, 19], "after a loss of power");
    pool.start_checkpoint();
    while pool.checkpoint_step(1).unwrap() == crate::Progress::More {
        assert_eq!(unreadable(&pool), [16, 19], "while a checkpoint runs");
    }
    assert_eq!(unreadable(&pool), [16, 19], "from the index");
    pool.close().unwrap();
    let mut pool = fixture.open();
    assert_eq!(unreadable(&pool), [16, 19], "from the index, after a restart");
    assert_eq!(pool.usage().corrupt_blocks, 0, "a lost block is no newly found damage");
    pool.write(VOLUME, stamp(3), BlockIndex(16), blocks(7, 1)).unwrap();
    pool.discard(VOLUME, stamp(4), BlockIndex::range(19..20)).unwrap();
    assert_eq!(unreadable(&pool), [0; 0], "a write and a discard make a block readable");
    pool.checkpoint().unwrap();
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert_eq!(pool.read(VOLUME, BlockIndex::range(16..17)).unwrap(), blocks(7, 1));
    assert_eq!(pool.read(VOLUME, BlockIndex::range(19..20)).unwrap(), [0; BLOCK][..]);
}

#[test]
fn blocks_behind_the_end_of_the_volume_are_not_marked() {
    let (_fixture, mut pool) = fixture();
    pool.mark_lost(VOLUME, stamp(2), ExtentIndex(2), u16::MAX).unwrap();
    assert_eq!(unreadable(&pool), (32..40).collect::<Vec<_>>());
    assert!(matches!(pool.mark_lost(VOLUME, stamp(3), ExtentIndex(3), 1), Err(StoreError::Range { .. })));
    let before = pool.last_position();
    assert_eq!(pool.mark_lost(VOLUME, stamp(4), ExtentIndex(2), 1 << 15).unwrap(), before, "no block, no record");
}

/// A mark needs a slot: the index keeps it in the record of its extent.
#[test]
fn a_mark_in_an_extent_that_was_never_written_takes_a_slot() {
    let (fixture, mut pool) = fixture();
    pool.create_volume(VolumeId(2), 1 << 20).unwrap();
    let used = pool.usage().used;
    pool.mark_lost(VolumeId(2), stamp(1), ExtentIndex(9), u16::MAX).unwrap();
    pool.checkpoint().unwrap();
    assert!(pool.usage().used > used);
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert!(
        matches!(pool.read(VolumeId(2), BlockIndex::range(144..160)), Err(ReadError::Corrupt { blocks, .. }) if blocks.len() == 16)
    );
}

#[test]
fn a_pool_has_format_1_until_a_block_is_lost() {
    let (fixture, pool) = fixture();
    assert_eq!(pool.label.version, label::FIRST_VERSION);
    pool.close().unwrap();
    let mut pool = fixture.open();
    assert_eq!(pool.label.version, label::FIRST_VERSION);
    pool.mark_lost(VOLUME, stamp(2), ExtentIndex(0), 1).unwrap();
    drop(pool);
    fixture.crash();
    let pool = fixture.open();
    assert_eq!(pool.label.version, label::VERSION, "the label was durable before the record was written");
}

/// A label that a running job writes has the old version, so the mark waits for the end of that job.
#[test]
fn the_first_mark_waits_for_the_label_of_a_checkpoint() {
    let (fixture, mut pool) = fixture();
    pool.write(VOLUME, stamp(2), BlockIndex(0), blocks(2, 1)).unwrap();
    pool.start_checkpoint();
    loop {
        let job = pool.checkpoint_job(1).unwrap().expect("a checkpoint runs");
        if pool.running_checkpoint.as_ref().is_some_and(crate::checkpoint::Checkpoint::writes_label) {
            assert!(matches!(pool.mark_lost(VOLUME, stamp(3), ExtentIndex(0), 1), Err(StoreError::JournalFull)));
            pool.complete_checkpoint_job(job.run()).unwrap();
            break;
        }
        pool.complete_checkpoint_job(job.run()).unwrap();
    }
    pool.mark_lost(VOLUME, stamp(3), ExtentIndex(0), 1).unwrap();
    pool.checkpoint().unwrap();
    drop(pool);
    fixture.crash();
    assert_eq!(fixture.open().label.version, label::VERSION);
}

/// A disk that refuses the new label has failed, and no mark is in the journal.
#[test]
fn a_label_that_cannot_be_written_fails_the_pool() {
    let (fixture, mut pool) = fixture();
    fixture.disks[0].set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
    assert!(matches!(pool.mark_lost(VOLUME, stamp(2), ExtentIndex(0), 1), Err(StoreError::Failed { .. })));
    drop(pool);
    fixture.disks[0].set_faults(Faults::default());
    fixture.kill();
    assert_eq!(unreadable(&fixture.open()), [0; 0]);
}
