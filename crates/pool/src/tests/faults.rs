//! Tests with disks that report false success or return wrong data: a read returns the correct bytes or an error.

use super::Planted;
use super::fixture::{TestPool, blocks};
use super::model::{BLOCKS, Model, Op, VOLUMES, seeds};
use crate::sim::Faults;
use crate::{Pool, ReadError, StoreError};
use dyad_testkit::Prng;
use dyad_types::{BLOCK, BlockIndex, Epoch, Seq, Stamp, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// By volume and block: all tags that the block had at any time; 0 stands for an absent block.
type TagHistory = BTreeMap<(u64, u64), BTreeSet<u64>>;

/// Adds the present tag of each block.
fn add_tags(history: &mut TagHistory, model: &Model) {
    for volume in VOLUMES {
        for block in 0..BLOCKS {
            history
                .entry((volume, block))
                .or_default()
                .insert(model.blocks.get(&(volume, block)).copied().unwrap_or(0));
        }
    }
}

/// Reads block by block. A block that can be read must hold one of the tags in `allowed`. Returns the number of failed
/// reads.
fn verify(pool: &Pool, allowed: &TagHistory) -> Result<u64, String> {
    let mut refused = 0;
    for ((volume, block), tags) in allowed {
        match pool.read(VolumeId(*volume), BlockIndex::range(*block..*block + 1)) {
            Ok(data) => {
                let tag = if data[..] == [0; BLOCK] { 0 } else { super::model::tag_of(&data) };
                if !tags.contains(&tag) {
                    return Err(format!(
                        "block {block} of volume {volume} silently holds {tag:x}, not one of {tags:?}"
                    ));
                }
            }
            Err(
                ReadError::Corrupt { .. }
                | ReadError::Io { .. }
                | ReadError::IndexDamaged { .. }
                | ReadError::Failed { .. },
            ) => {
                refused += 1;
            }
            Err(e) => return Err(format!("unexpected: {e}")),
        }
    }
    Ok(refused)
}

/// Runs operations under faults, without loss of power: only the newest content is correct. Returns the number of
/// failed reads.
fn run_with_power(seed: u64, faults: Faults, planted: Planted) -> Result<u64, String> {
    let mut fixture = TestPool::new(seed, &[10, 10]);
    fixture.planted = planted;
    let mut pool = fixture.open();
    VOLUMES.iter().for_each(|v| {
        pool.create_volume(VolumeId(*v), BLOCKS).unwrap();
    });
    let mut random = Prng::new(seed);
    let mut model = Model::default();
    let mut refused = 0;
    fixture.disks.iter().for_each(|d| d.set_faults(faults));
    for tag in 1..120 {
        let op = Op::random(&mut random);
        match Model::perform(&mut pool, &op, tag) {
            Ok(_) => model.apply(&op, tag),
            Err(StoreError::JournalFull | StoreError::NoSpace) => {}
            Err(StoreError::Failed { .. }) => return Ok(refused),
            Err(e) => return Err(e.to_string()),
        }
        if tag % 30 == 0 {
            if pool.checkpoint().is_err() {
                return Ok(refused);
            }
            let mut now = TagHistory::new();
            add_tags(&mut now, &model);
            refused += verify(&pool, &now)?;
        }
    }
    Ok(refused)
}

/// Runs operations under faults and with losses of power. A disk that reports false success of a sync may lose synced
/// writes, but a read returns data that was once written to the same block, or the pool does not open. Returns whether
/// the pool opened each time.
fn run_with_power_losses(seed: u64, faults: Faults) -> Result<bool, String> {
    let fixture = TestPool::new(seed, &[10, 10]);
    let mut pool = fixture.open();
    VOLUMES.iter().for_each(|v| {
        pool.create_volume(VolumeId(*v), BLOCKS).unwrap();
    });
    pool.sync().unwrap();
    let mut random = Prng::new(seed);
    let mut model = Model::default();
    let mut history = TagHistory::new();
    add_tags(&mut history, &model);
    let mut tag = 0;
    for _ in 0..4 {
        fixture.disks.iter().for_each(|d| d.set_faults(faults));
        for _ in 0..40 {
            tag += 1;
            let op = Op::random(&mut random);
            if Model::perform(&mut pool, &op, tag).is_err() {
                break;
            }
            model.apply(&op, tag);
            add_tags(&mut history, &model);
            if random.below(6) == 0 && (pool.sync().is_err() || pool.checkpoint_step(4).is_err()) {
                break;
            }
            if random.below(20) == 0 {
                pool.start_checkpoint();
            }
        }
        drop(pool);
        fixture.disks.iter().for_each(|d| d.set_faults(Faults::default()));
        // Each third time only the process ends, and the page cache stays.
        if random.below(3) == 0 {
            fixture.kill();
        } else {
            fixture.crash();
        }
        match fixture.try_open() {
            Ok((opened, _)) => pool = opened,
            Err(_) => return Ok(false),
        }
        if VOLUMES.iter().any(|v| pool.volume(VolumeId(*v)).is_none()) {
            return Ok(true);
        }
        verify(&pool, &history)?;
    }
    Ok(true)
}

/// Probabilities that damage data often, but fail few operations.
const SILENT_FAULTS: Faults = Faults {
    lying_sync: 0,
    lost_write: 20_000,
    misdirected_write: 10_000,
    bit_flip: 20_000,
    read_error: 5_000,
    write_error: 0,
    sync_error: 0,
};

/// After a failed sync Linux takes the pages for written, and they stay in the page cache of the boot. Recovery must not
/// rely on a record that is only there: a later flush would stand behind a hole.
#[test]
fn a_failed_sync_and_a_restart_in_the_same_boot_lose_no_later_flush() {
    let stamp = |n: u64| Stamp { epoch: Epoch(1), seq: Seq(n) };
    for seed in 0..seeds(25) {
        let fixture = TestPool::new(seed, &[16]);
        let mut pool = fixture.open();
        let write = |pool: &mut Pool, blocks_written: std::ops::Range<u64>| {
            for n in blocks_written {
                pool.write(VolumeId(1), stamp(n + 1), BlockIndex(n), blocks(n + 1, 1)).unwrap();
            }
        };
        pool.create_volume(VolumeId(1), 64).unwrap();
        write(&mut pool, 0..4);
        pool.sync().unwrap();
        write(&mut pool, 4..8);
        fixture.disks[0].set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
        pool.sync().unwrap_err();
        fixture.disks[0].set_faults(Faults::default());
        drop(pool);
        fixture.kill();
        let mut pool = fixture.open();
        write(&mut pool, 8..12);
        pool.sync().unwrap();
        drop(pool);
        fixture.crash();
        let (pool, _) = fixture.try_open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for n in 0..12 {
            let read = pool.read(VolumeId(1), BlockIndex::range(n..n + 1)).unwrap();
            assert!(read == blocks(n + 1, 1), "seed {seed}: block {n} was flushed");
        }
    }
}

#[test]
fn silently_damaged_data_is_never_returned() {
    let mut refused = 0;
    for seed in 0..seeds(25) {
        refused +=
            run_with_power(seed, SILENT_FAULTS, Planted::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    assert!(refused > 25, "only {refused} reads were refused: the faults have no effect");
}

#[test]
fn a_planted_missing_check_of_checksums_is_found() {
    let planted = Planted { unchecked_checksum: true, ..Planted::default() };
    let found = (0..10).find(|seed| run_with_power(*seed, SILENT_FAULTS, planted).is_err());
    assert!(found.is_some(), "10 seeds did not find the planted bug");
}

#[test]
fn false_syncs_and_power_losses_never_return_data_that_was_not_written() {
    let faults = Faults { lying_sync: 100_000, write_error: 500, sync_error: 5_000, ..SILENT_FAULTS };
    let mut opened = 0;
    for seed in 0..seeds(40) {
        opened += u32::from(run_with_power_losses(seed, faults).unwrap_or_else(|e| panic!("seed {seed}: {e}")));
    }
    assert!(opened < seeds(40) as u32, "damage this heavy is noticed at open at least once");
}
