//! Random operations compared with the reference model, with checkpoints, process kills and reopens between them.

use super::model::{BLOCKS, Model, Op, VOLUMES};
use super::rig::Rig;
use crate::Pool;
use dyad_types::VolumeId;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Do(Op),
    Sync,
    Steps(usize),
    Checkpoint,
    Kill,
    SyncAndCrash,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..BLOCKS, 1u64..40).prop_map(|(block, count)| (block, count.min(BLOCKS - block)));
    let extents = (0u64..12, 1u64..12).prop_map(|(from, count)| (from, (from + count).min(12)));
    let volume = prop::sample::select(&VOLUMES[..]);
    prop_oneof![
        6 => (volume.clone(), range.clone()).prop_map(|(volume, (block, count))| Op::Write { volume, block, count }),
        3 => (volume.clone(), range).prop_map(|(volume, (block, count))| Op::Discard { volume, block, count }),
        1 => (volume.clone(), extents.clone()).prop_map(|(volume, (from, to))| Op::Mark { volume, from, to }),
        1 => (volume.clone(), extents).prop_map(|(volume, (from, to))| Op::Clear { volume, from, to }),
        1 => (0u8..4, prop::bool::ANY).prop_map(|(key, there)| Op::Meta { key, there }),
        1 => (volume, 0u64..5).prop_map(|(volume, back)| Op::Confirm { volume, back }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => op().prop_map(Event::Do),
        2 => Just(Event::Sync),
        4 => (1usize..4).prop_map(Event::Steps),
        1 => Just(Event::Checkpoint),
        1 => Just(Event::Kill),
        1 => Just(Event::SyncAndCrash),
        1 => Just(Event::Close),
    ]
}

fn run(disks: &[u64], events: &[Event]) {
    let rig = Rig::new(1, disks);
    let mut pool = rig.open();
    VOLUMES.iter().for_each(|v| {
        pool.create_volume(VolumeId(*v), BLOCKS).unwrap();
    });
    let mut model = Model::default();
    for (tag, event) in (1u64..).zip(events) {
        match event {
            Event::Do(op) => {
                Model::perform(&mut pool, op, tag).unwrap();
                model.apply(op, tag);
            }
            Event::Sync => {
                pool.sync().unwrap();
            }
            Event::Steps(steps) => {
                pool.start_checkpoint();
                for _ in 0..*steps {
                    pool.checkpoint_step(2).unwrap();
                }
            }
            Event::Checkpoint => pool.checkpoint().unwrap(),
            Event::Kill => {
                drop(pool);
                rig.kill();
                pool = rig.open();
            }
            Event::SyncAndCrash => {
                pool.sync().unwrap();
                drop(pool);
                rig.crash();
                pool = rig.open();
            }
            Event::Close => {
                pool.close().unwrap();
                pool = rig.open();
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
    fn one_disk_agrees_with_a_map(events in prop::collection::vec(event(), 1..40)) {
        run(&[12], &events);
    }

    #[test]
    fn three_disks_agree_with_a_map(events in prop::collection::vec(event(), 1..40)) {
        run(&[12, 8, 10], &events);
    }
}
