//! A full pool and a session that ends meanwhile: a deletion is answered in bounded time, and the write goes on after it.

use super::pair::{Pair, Step::*};

/// A write that `full` nodes refuse for lack of space, and then a new session.
fn full_pool_and_a_new_session(full: &[usize]) -> Pair {
    let mut pair = Pair::new();
    pair.heal();
    for &node in full {
        pair.step(Full { node, full: true });
    }
    pair.step(Write { volume: 0, block: 0, count: 20 });
    for _ in 0..20 {
        for node in 0..2 {
            pair.step(Store { node, count: 9 });
            pair.step(Deliver { node, count: 9 });
        }
    }
    pair.step(LinkDown);
    pair.step(LinkUp);
    pair
}

#[test]
fn a_deletion_is_answered_when_the_writers_pool_was_full_at_a_new_session() {
    let mut pair = full_pool_and_a_new_session(&[0]);
    pair.heal_by_deleting();
    pair.check_replicas();
}

#[test]
fn a_deletion_is_answered_when_the_peers_pool_was_full_at_a_new_session() {
    let mut pair = full_pool_and_a_new_session(&[1]);
    pair.heal_by_deleting();
    pair.check_replicas();
}

#[test]
fn a_deletion_is_answered_when_both_pools_were_full_at_a_new_session() {
    let mut pair = full_pool_and_a_new_session(&[0, 1]);
    pair.heal_by_deleting();
    pair.check_replicas();
}

/// The answer of the store arrives when the handshake waits for it.
#[test]
fn a_write_that_is_refused_for_lack_of_space_during_the_handshake_is_queued_again() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Full { node: 0, full: true });
    pair.step(Write { volume: 0, block: 0, count: 20 });
    pair.step(LinkDown);
    pair.step(LinkUp);
    pair.step(Store { node: 0, count: 9 });
    pair.heal_by_deleting();
    pair.check_replicas();
}
