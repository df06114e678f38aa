//! Random sequences of steps, checked by the oracle.

use super::pair::{BLOCKS, Pair, Step};
use proptest::prelude::*;

fn span() -> impl Strategy<Value = (u64, u64)> {
    (0..BLOCKS, 1u64..24).prop_map(|(block, count)| (block, count.min(BLOCKS - block)))
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0usize..2;
    let volume = 0usize..2;
    prop_oneof![
        12 => (volume.clone(), span()).prop_map(|(volume, (block, count))| Step::Write { volume, block, count }),
        2 => (volume.clone(), span()).prop_map(|(volume, (block, count))| Step::Discard { volume, block, count }),
        6 => (volume.clone(), span()).prop_map(|(volume, (block, count))| Step::Read { volume, block, count }),
        4 => volume.clone().prop_map(|volume| Step::Flush { volume }),
        20 => (node.clone(), 1usize..12).prop_map(|(node, count)| Step::Store { node, count }),
        20 => (node.clone(), 1usize..12).prop_map(|(node, count)| Step::Deliver { node, count }),
        2 => Just(Step::LinkDown),
        4 => Just(Step::LinkUp),
        1 => node.clone().prop_map(|node| Step::Kill { node }),
        1 => (node.clone(), 0usize..50).prop_map(|(node, keep)| Step::Power { node, keep }),
        4 => node.clone().prop_map(|node| Step::Start { node }),
        2 => node.clone().prop_map(|node| Step::Remove { node }),
        4 => node.clone().prop_map(|node| Step::Learn { node }),
        4 => Just(Step::Readd),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, full)| Step::Full { node, full }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, hangs)| Step::Hang { node, hangs }),
        2 => node.clone().prop_map(|node| Step::Progress { node }),
        1 => Just(Step::Create),
        3 => (0u64..1500).prop_map(|millis| Step::Tick { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_steps_breaks_a_guarantee(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.heal();
        pair.check_replicas();
    }

    #[test]
    fn a_damaged_block_is_never_read(
        steps in prop::collection::vec(prop_oneof![
            8 => step().prop_filter("no crashes", |s| !matches!(s, Step::Kill { .. } | Step::Power { .. } | Step::Remove { .. })),
            2 => (0usize..2, 0usize..2, 0..BLOCKS).prop_map(|(node, volume, block)| Step::Rot { node, volume, block }),
            1 => (0usize..2, 0usize..2, 0..BLOCKS).prop_map(|(node, volume, block)| Step::Damaged { node, volume, block }),
        ], 1..120),
    ) {
        let mut pair = Pair::new();
        pair.heal();
        for step in steps {
            pair.step(step);
        }
        pair.heal();
    }

    #[test]
    fn a_block_that_no_copy_can_give_never_stops_a_resync(
        steps in prop::collection::vec(prop_oneof![
            8 => step(),
            1 => (0usize..2, 0..BLOCKS).prop_map(|(volume, block)| Step::RotOnMember { volume, block }),
        ], 1..200),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.heal();
        pair.check_replicas();
    }

    #[test]
    fn a_deletion_frees_a_full_pool_whatever_happened_before(
        steps in prop::collection::vec(prop_oneof![
            8 => step().prop_filter("no crashes", |s| !matches!(s, Step::Kill { .. } | Step::Power { .. } | Step::Remove { .. })),
            1 => (0usize..2).prop_map(|node| Step::Full { node, full: true }),
            1 => Just(Step::LinkDown),
        ], 1..150),
    ) {
        let mut pair = Pair::new();
        pair.heal();
        for step in steps {
            pair.step(step);
        }
        pair.heal_by_deleting();
        pair.check_replicas();
    }
}
