//! Tests that compare random operations on a pool with the reference model, with checkpoints, ends of the process and
//! losses of power between the operations.

use super::fixture::TestPool;
use super::model::{BLOCKS, Model, Op, VOLUMES};
use crate::Pool;
use dyad_types::VolumeId;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Operation(Op),
    Sync,
    /// Starts a checkpoint and runs this many steps.
    CheckpointSteps(usize),
    Checkpoint,
    /// End of the process, then opening.
    Kill,
    /// Sync, loss of power, then opening.
    SyncAndCrash,
    /// Closing, then opening.
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..BLOCKS, 1u64..40).prop_map(|(block, count)| (block, count.min(BLOCKS - block)));
    let extents = (0u64..12, 1u64..12).prop_map(|(from, count)| (from, (from + count).min(12)));
    let volume = prop::sample::select(&VOLUMES[..]);
    let lost = (volume.clone(), 0u64..13, any::<u16>());
    prop_oneof![
        6 => (volume.clone(), range.clone()).prop_map(|(volume, (block, count))| Op::Write { volume, block, count }),
        3 => (volume.clone(), range).prop_map(|(volume, (block, count))| Op::Discard { volume, block, count }),
        1 => lost.prop_map(|(volume, extent, blocks)| Op::MarkLost { volume, extent, blocks }),
        1 => (volume.clone(), extents.clone()).prop_map(|(volume, (from, to))| Op::MarkDirty { volume, from, to }),
        1 => (volume.clone(), extents).prop_map(|(volume, (from, to))| Op::ClearDirty { volume, from, to }),
        1 => (0u8..4, prop::bool::ANY).prop_map(|(key, set)| Op::Meta { key, set }),
        1 => (volume, 0u64..5).prop_map(|(volume, back)| Op::Confirm { volume, back }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => op().prop_map(Event::Operation),
        2 => Just(Event::Sync),
        4 => (1usize..4).prop_map(Event::CheckpointSteps),
        1 => Just(Event::Checkpoint),
        1 => Just(Event::Kill),
        1 => Just(Event::SyncAndCrash),
        1 => Just(Event::Close),
    ]
}

fn run(disks: &[u64], events: &[Event]) {
    let fixture = TestPool::new(1, disks);
    let mut pool = fixture.open();
    VOLUMES.iter().for_each(|v| {
        pool.create_volume(VolumeId(*v), BLOCKS).unwrap();
    });
    let mut model = Model::default();
    for (tag, event) in (1u64..).zip(events) {
        match event {
            Event::Operation(op) => {
                Model::perform(&mut pool, op, tag).unwrap();
                model.apply(op, tag);
            }
            Event::Sync => {
                pool.sync().unwrap();
            }
            Event::CheckpointSteps(steps) => {
                pool.start_checkpoint();
                for _ in 0..*steps {
                    pool.checkpoint_step(2).unwrap();
                }
            }
            Event::Checkpoint => pool.checkpoint().unwrap(),
            Event::Kill => {
                drop(pool);
                fixture.kill();
                pool = fixture.open();
            }
            Event::SyncAndCrash => {
                pool.sync().unwrap();
                drop(pool);
                fixture.crash();
                pool = fixture.open();
            }
            Event::Close => {
                pool.close().unwrap();
                pool = fixture.open();
            }
        }
        compare(&pool, &model);
    }
}

fn compare(pool: &Pool, model: &Model) {
    let seen = Model::observe(pool).unwrap();
    assert!(model.matches(&seen, pool), "expected {model:#?}\nfound {seen:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_on_one_disk_agrees_with_the_model(events in prop::collection::vec(event(), 1..40)) {
        run(&[12], &events);
    }

    #[test]
    fn a_pool_on_three_disks_agrees_with_the_model(events in prop::collection::vec(event(), 1..40)) {
        run(&[12, 8, 10], &events);
    }
}
