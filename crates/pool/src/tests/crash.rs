//! Tests with a loss of power at any disk operation. After the restart the pool holds a prefix of the operations, which
//! includes all operations up to the last sync.

use super::Planted;
use super::fixture::{TestPool, blocks};
use super::model::{BLOCKS, Model, Op, VOLUMES, seeds};
use crate::{Pool, Position, StoreError};
use dyad_testkit::Prng;
use dyad_types::{BLOCK, BlockIndex, Epoch, Seq, Stamp, VolumeId};

/// The load between two losses of power.
#[derive(Clone, Copy)]
struct Load {
    /// Number of operations, syncs and checkpoint steps.
    steps: u64,
    /// Whether all operations are large writes, so that the journal is nearly always full and wraps often.
    large: bool,
    /// The power fails after fewer disk operations than this.
    disk_operations: u64,
}

const LIGHT: Load = Load { steps: 80, large: false, disk_operations: 60 };
const HEAVY: Load = Load { steps: 300, large: true, disk_operations: 300 };

/// The operations since the last restart, and the states that the pool may have after the next one.
struct JournalRun {
    /// The model after each operation, with the operation's position; the first entry is the last one known to be
    /// durable.
    history: Vec<(Position, Model)>,
}

impl JournalRun {
    fn new(model: Model, at: Position) -> Self {
        Self { history: vec![(at, model)] }
    }

    fn newest(&self) -> Model {
        self.history.last().map(|(_, m)| m.clone()).unwrap_or_default()
    }

    /// All operations up to `at` are durable: shorter prefixes are not allowed any more.
    fn set_durable(&mut self, at: Position) {
        let keep = self.history.iter().rposition(|(p, _)| *p <= at).unwrap_or(0);
        self.history.drain(..keep);
    }

    /// The state of the reopened pool; an error if it is not an allowed state.
    fn accept(&self, pool: &Pool) -> Result<Model, String> {
        let seen = Model::observe(pool).map_err(|e| e.to_string())?;
        match self.history.iter().rev().find(|(_, m)| m.matches(&seen, pool)) {
            Some((_, model)) => Ok(model.clone()),
            None => Err(format!("none of {} allowed states came back", self.history.len())),
        }
    }
}

/// A checkpoint syncs and commits in pieces, so a restart may find any of them done and the others not.
#[test]
fn a_restart_between_any_two_steps_of_a_checkpoint_loses_nothing() {
    let stamp = |seq| Stamp { epoch: Epoch(1), seq: Seq(seq) };
    let (kept, deleted) = (VolumeId(1), VolumeId(2));
    for stop_after in 0.. {
        let fixture = TestPool::new(7, &[32, 24]);
        let mut pool = fixture.open();
        for volume in [kept, deleted] {
            pool.create_volume(volume, 4096).unwrap();
            for n in 0..70 {
                pool.write(volume, stamp(n), BlockIndex(n * 16), blocks(n, 2)).unwrap();
            }
        }
        pool.checkpoint().unwrap();
        for n in 0..40 {
            pool.write(kept, stamp(100 + n), BlockIndex(n * 32), blocks(500 + n, 1)).unwrap();
        }
        for n in 0..10 {
            pool.discard(kept, stamp(200 + n), BlockIndex((2 * n + 1) * 16).run(16)).unwrap();
        }
        pool.delete_volume(deleted).unwrap();
        pool.start_checkpoint();
        let mut finished = false;
        for _ in 0..stop_after {
            finished |= pool.checkpoint_step(1).unwrap() == crate::Progress::Finished;
        }
        drop(pool);
        fixture.kill();
        let mut pool = fixture.open();
        for round in 0..2 {
            for n in 0..70u64 {
                let discarded = n % 2 == 1 && n < 20;
                let rewritten = n.is_multiple_of(2) && n < 80;
                let second = if discarded { vec![0; BLOCK].into() } else { blocks(n, 2).slice(BLOCK..) };
                let first = if discarded { vec![0; BLOCK].into() } else { blocks(n, 2).slice(..BLOCK) };
                let first = if rewritten { blocks(500 + n / 2, 1) } else { first };
                assert_eq!(pool.read(kept, BlockIndex(n * 16).run(1)).unwrap(), first, "{stop_after} {round} {n}");
                assert_eq!(pool.read(kept, BlockIndex(n * 16 + 1).run(1)).unwrap(), second, "{stop_after} {round} {n}");
            }
            assert!(pool.volume(deleted).is_none());
            pool.checkpoint().unwrap();
        }
        if finished {
            assert!(stop_after > 50, "{stop_after} steps");
            return;
        }
    }
}

/// Runs operations, syncs and checkpoint steps until the power fails or the load ends.
fn run_load(
    pool: &mut Pool,
    run: &mut JournalRun,
    random: &mut Prng,
    tag: &mut u64,
    load: Load,
) -> Result<(), StoreError> {
    for _ in 0..load.steps {
        match random.below(10) {
            0 => {
                let at = pool.sync()?;
                run.set_durable(at);
            }
            1..4 => {
                if random.below(4) == 0 {
                    pool.start_checkpoint();
                }
                pool.checkpoint_step(1 + random.below(5) as usize)?;
                run.set_durable(pool.durable());
            }
            _ => {
                *tag += 1;
                let op = if load.large { Op::large_write(random) } else { Op::random(random) };
                let mut model = run.newest();
                model.apply(&op, *tag);
                // If the power fails during the operation, it may or may not survive.
                run.history.push((Position(u64::MAX), model));
                match Model::perform(pool, &op, *tag) {
                    Ok(position) => run.history.last_mut().expect("just pushed").0 = position.max(pool.last_position()),
                    Err(StoreError::NoSpace | StoreError::JournalFull) => {
                        run.history.pop();
                        pool.checkpoint()?;
                        run.set_durable(pool.durable());
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }
    Ok(())
}

/// Opens the pool and creates the volumes of the model, durably.
fn open_with_volumes(fixture: &TestPool) -> Pool {
    let mut pool = fixture.open();
    for volume in VOLUMES {
        pool.create_volume(VolumeId(volume), BLOCKS).unwrap();
    }
    pool.sync().unwrap();
    pool
}

/// Six runs, each ended by a loss of power at a random disk operation.
fn run(seed: u64, sizes: &[u64], planted: Planted, load: Load) -> Result<(), String> {
    let mut fixture = TestPool::new(seed, sizes);
    fixture.planted = planted;
    let mut pool = open_with_volumes(&fixture);
    let mut random = Prng::new(seed);
    let mut model = Model::default();
    let mut tag = 0;
    for _ in 0..6 {
        let mut run = JournalRun::new(model, pool.last_position());
        fixture.disks[0].cut_power_after(random.below(load.disk_operations) as u32);
        match run_load(&mut pool, &mut run, &mut random, &mut tag, load) {
            Ok(()) => {}
            Err(StoreError::Failed { .. }) if fixture.disks[0].is_power_cut() => {}
            Err(e) => return Err(format!("with power on: {e}")),
        }
        drop(pool);
        fixture.crash();
        (pool, _) = fixture.try_open().map_err(|e| format!("does not open: {e}"))?;
        model = run.accept(&pool)?;
        // The state after the restart may not be durable yet; the sync makes it the base of the next run.
        pool.sync().map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[test]
fn power_lost_at_random_on_one_disk_leaves_a_prefix() {
    for seed in 0..seeds(40) {
        run(seed, &[12], Planted::default(), LIGHT).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn power_lost_at_random_with_a_full_journal_leaves_a_prefix() {
    for seed in 2_000_000..2_000_000 + seeds(6) {
        run(seed, &[40], Planted::default(), HEAVY).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// With seed 490 a torn record of an old session became whole.
#[test]
fn a_torn_record_of_an_old_session_does_not_become_whole() {
    run(490, &[12], Planted::default(), LIGHT).unwrap();
}

#[test]
fn power_lost_at_random_on_two_disks_leaves_a_prefix() {
    for seed in 1_000_000..1_000_000 + seeds(40) {
        run(seed, &[10, 10], Planted::default(), LIGHT).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// One sequence of operations with two checkpoints. Power is lost at each write, sync and commit in turn.
#[test]
fn power_lost_at_each_disk_operation_leaves_a_prefix() {
    let mut cut = 0;
    loop {
        let fixture = TestPool::new(cut, &[10, 10]);
        let mut pool = open_with_volumes(&fixture);
        let mut run = JournalRun::new(Model::default(), pool.last_position());
        fixture.disks[0].cut_power_after(cut as u32);
        let mut random = Prng::new(99);
        let result = run_two_checkpoints(&mut pool, &mut run, &mut random);
        let finished = !fixture.disks[0].is_power_cut();
        assert!(finished == result.is_ok(), "cut {cut}: {result:?}");
        drop(pool);
        fixture.crash();
        let pool = fixture.open();
        run.accept(&pool).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        if finished {
            break;
        }
        cut += 1;
    }
    assert!(cut > 80, "the sequence has only {cut} disk operations");
}

fn run_two_checkpoints(pool: &mut Pool, run: &mut JournalRun, random: &mut Prng) -> Result<(), StoreError> {
    let mut tag = 0;
    for _ in 0..2 {
        for step in 0..24 {
            if step == 12 {
                let at = pool.sync()?;
                run.set_durable(at);
                pool.start_checkpoint();
            }
            tag += 1;
            let op = Op::random(random);
            let mut model = run.newest();
            model.apply(&op, tag);
            run.history.push((Position(u64::MAX), model));
            let position = Model::perform(pool, &op, tag)?;
            run.history.last_mut().expect("just pushed").0 = position.max(pool.last_position());
            if step > 12 {
                pool.checkpoint_step(3)?;
                run.set_durable(pool.durable());
            }
        }
        pool.checkpoint()?;
        run.set_durable(pool.durable());
    }
    Ok(())
}

#[test]
fn power_lost_while_the_pool_is_opened_loses_nothing() {
    let fixture = TestPool::new(5, &[10, 10]);
    let mut pool = open_with_volumes(&fixture);
    let mut run = JournalRun::new(Model::default(), pool.last_position());
    run_load(&mut pool, &mut run, &mut Prng::new(3), &mut 0, LIGHT).unwrap();
    let at = pool.sync().unwrap();
    run.set_durable(at);
    drop(pool);
    fixture.crash();
    for cut in 0..8 {
        fixture.disks[0].cut_power_after(cut);
        let opened = fixture.try_open().is_ok();
        let expected =
            "labels are four writes and two syncs, and one write repeats the records after the last known sync";
        assert_eq!(opened, cut >= 7, "{expected}");
        fixture.crash();
    }
    run.accept(&fixture.open()).unwrap();
}

#[test]
fn a_planted_skipped_sync_is_found() {
    let planted = Planted { skipped_sync: true, ..Planted::default() };
    let found = (0..20).find(|seed| run(*seed, &[10, 10], planted, LIGHT).is_err());
    assert!(found.is_some(), "20 seeds did not find the planted bug");
}
