//! Loss of power at any operation. After the restart the pool holds a prefix of the operations, at least up to the last
//! sync.

use super::Planted;
use super::model::{BLOCKS, Model, Op, VOLUMES, seeds};
use super::rig::Rig;
use crate::{Pool, Position, StoreError};
use dyad_testkit::Prng;
use dyad_types::VolumeId;

/// Operations between two losses of power.
#[derive(Clone, Copy)]
struct Load {
    steps: u64,
    /// Large writes only, so that the journal is nearly always full and wraps often.
    large: bool,
    /// The power fails before this many operations.
    cut: u64,
}

const LIGHT: Load = Load { steps: 80, large: false, cut: 60 };
const HEAVY: Load = Load { steps: 300, large: true, cut: 300 };

/// The operations since the last restart: the states that the pool may have after the next one.
struct JournalRun {
    /// The model after each operation since the last operation known to be durable, with its position.
    history: Vec<(Position, Model)>,
}

impl JournalRun {
    fn new(model: Model, at: Position) -> Self {
        Self { history: vec![(at, model)] }
    }

    fn newest(&self) -> Model {
        self.history.last().map(|(_, m)| m.clone()).unwrap_or_default()
    }

    /// Every operation up to `at` is durable: shorter prefixes are not allowed.
    fn durable(&mut self, at: Position) {
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

/// Runs operations, syncs and checkpoint steps until the power fails.
fn run_until_cut(
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
                run.durable(at);
            }
            1..4 => {
                if random.below(4) == 0 {
                    pool.start_checkpoint();
                }
                pool.checkpoint_step(1 + random.below(5) as usize)?;
                run.durable(pool.durable());
            }
            _ => {
                *tag += 1;
                let op = if load.large { Op::large_write(random) } else { Op::random(random) };
                let mut model = run.newest();
                model.apply(&op, *tag);
                // The power failed during the operation: it may or may not survive.
                run.history.push((Position(u64::MAX), model));
                match Model::perform(pool, &op, *tag) {
                    Ok(position) => run.history.last_mut().expect("just pushed").0 = position.max(pool.last_position()),
                    Err(StoreError::NoSpace | StoreError::JournalFull) => {
                        run.history.pop();
                        pool.checkpoint()?;
                        run.durable(pool.durable());
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }
    Ok(())
}

fn begin(rig: &Rig) -> Pool {
    let mut pool = rig.open();
    for volume in VOLUMES {
        pool.create_volume(VolumeId(volume), BLOCKS).unwrap();
    }
    pool.sync().unwrap();
    pool
}

/// Several runs, each ended by a loss of power at a random operation.
fn run(seed: u64, sizes: &[u64], planted: Planted, load: Load) -> Result<(), String> {
    let mut rig = Rig::new(seed, sizes);
    rig.planted = planted;
    let mut pool = begin(&rig);
    let mut random = Prng::new(seed);
    let mut model = Model::default();
    let mut tag = 0;
    for _ in 0..6 {
        let mut run = JournalRun::new(model, pool.last_position());
        rig.disks[0].cut_after(random.below(load.cut) as u32);
        match run_until_cut(&mut pool, &mut run, &mut random, &mut tag, load) {
            Ok(()) => {}
            Err(StoreError::Failed { .. }) if rig.disks[0].is_cut() => {}
            Err(e) => return Err(format!("without a cut: {e}")),
        }
        drop(pool);
        rig.crash();
        (pool, _) = rig.try_open().map_err(|e| format!("does not open: {e}"))?;
        model = run.accept(&pool)?;
        // The state after the restart may not be durable yet; the sync makes it the base of the next run.
        pool.sync().map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[test]
fn random_cuts_on_one_disk() {
    for seed in 0..seeds(40) {
        run(seed, &[12], Planted::default(), LIGHT).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn random_cuts_with_a_full_journal() {
    for seed in 2_000_000..2_000_000 + seeds(6) {
        run(seed, &[40], Planted::default(), HEAVY).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// With this seed a torn record of an old session became whole.
#[test]
fn seed_490() {
    run(490, &[12], Planted::default(), LIGHT).unwrap();
}

#[test]
fn random_cuts_on_two_disks() {
    for seed in 1_000_000..1_000_000 + seeds(40) {
        run(seed, &[10, 10], Planted::default(), LIGHT).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

/// One script with two checkpoints, cut at each write, sync and commit.
#[test]
fn a_cut_at_every_operation() {
    let mut cut = 0;
    loop {
        let rig = Rig::new(cut, &[10, 10]);
        let mut pool = begin(&rig);
        let mut run = JournalRun::new(Model::default(), pool.last_position());
        rig.disks[0].cut_after(cut as u32);
        let mut random = Prng::new(99);
        let result = script(&mut pool, &mut run, &mut random);
        let finished = !rig.disks[0].is_cut();
        assert!(finished == result.is_ok(), "cut {cut}: {result:?}");
        drop(pool);
        rig.crash();
        let pool = rig.open();
        run.accept(&pool).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        if finished {
            break;
        }
        cut += 1;
    }
    assert!(cut > 80, "the script has only {cut} operations");
}

fn script(pool: &mut Pool, run: &mut JournalRun, random: &mut Prng) -> Result<(), StoreError> {
    let mut tag = 0;
    for _ in 0..2 {
        for step in 0..24 {
            if step == 12 {
                let at = pool.sync()?;
                run.durable(at);
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
                run.durable(pool.durable());
            }
        }
        pool.checkpoint()?;
        run.durable(pool.durable());
    }
    Ok(())
}

/// Repeated cuts during open: the pool opens at the end without loss.
#[test]
fn a_cut_while_opening() {
    let rig = Rig::new(5, &[10, 10]);
    let mut pool = begin(&rig);
    let mut run = JournalRun::new(Model::default(), pool.last_position());
    run_until_cut(&mut pool, &mut run, &mut Prng::new(3), &mut 0, LIGHT).unwrap();
    let at = pool.sync().unwrap();
    run.durable(at);
    drop(pool);
    rig.crash();
    for cut in 0..7 {
        rig.disks[0].cut_after(cut);
        let opened = rig.try_open().is_ok();
        assert_eq!(opened, cut >= 6, "labels are four writes and two syncs");
        rig.crash();
    }
    run.accept(&rig.open()).unwrap();
}

#[test]
fn a_skipped_sync_is_found() {
    let planted = Planted { skipped_sync: true, ..Planted::default() };
    let found = (0..20).find(|seed| run(*seed, &[10, 10], planted, LIGHT).is_err());
    assert!(found.is_some(), "20 seeds did not find the planted bug");
}
