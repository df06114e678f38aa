//! Exclusive ranges of blocks: changes of the same block go one after the other, in order of arrival.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Locks over byte ranges. The caller names the holder of a lock by a key.
///
/// Held ranges never overlap. Waiters get their lock in order of arrival: a request for a range that overlaps the
/// range of an earlier waiter waits too.
pub(crate) struct RangeLocks<K> {
    /// Start of a range → (its end, key of the holder).
    held: BTreeMap<u64, (u64, K)>,
    waiting: VecDeque<(Range<u64>, K)>,
}

impl<K: Copy> RangeLocks<K> {
    pub fn new() -> Self {
        Self { held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Locks `range` for `key`, or puts the request into the queue. True if the lock is held now.
    ///
    /// # Panics
    ///
    /// If `range` is empty.
    pub fn acquire(&mut self, range: Range<u64>, key: K) -> bool {
        assert!(range.start < range.end, "an empty range cannot be locked");
        if self.is_held(&range) || self.waiting.iter().any(|(other, _)| overlap(other, &range)) {
            self.waiting.push_back((range, key));
            return false;
        }
        self.held.insert(range.start, (range.end, key));
        true
    }

    /// Unlocks the range that starts at `start`. Returns the keys whose locks are held from now on, in order of arrival.
    ///
    /// # Panics
    ///
    /// If no held range starts at `start`.
    pub fn release(&mut self, start: u64) -> Vec<K> {
        let gone = self.held.remove(&start);
        assert!(gone.is_some(), "only a held range can be released");
        let mut granted = Vec::new();
        let mut still: VecDeque<(Range<u64>, K)> = VecDeque::new();
        for (range, key) in std::mem::take(&mut self.waiting) {
            if self.is_held(&range) || still.iter().any(|(other, _)| overlap(other, &range)) {
                still.push_back((range, key));
            } else {
                self.held.insert(range.start, (range.end, key));
                granted.push(key);
            }
        }
        self.waiting = still;
        granted
    }

    fn is_held(&self, range: &Range<u64>) -> bool {
        // Held ranges are disjoint, so of those that start before our end the last one ends last.
        self.held.range(..range.end).next_back().is_some_and(|(_, (end, _))| *end > range.start)
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waiters_are_granted_in_order_and_never_overtaken() {
        let mut locks = RangeLocks::new();
        assert!(locks.acquire(0..4, 'a'));
        assert!(!locks.acquire(2..8, 'b'));
        assert!(!locks.acquire(6..9, 'c'), "overlaps the waiting b");
        assert!(locks.acquire(9..10, 'd'));
        assert_eq!(locks.release(0), vec!['b']);
        assert_eq!(locks.release(2), vec!['c']);
    }

    proptest! {
        /// Against a naive oracle: what is held never overlaps, and all are served in the end.
        #[test]
        fn held_ranges_are_disjoint_and_everybody_is_served(
            asks in prop::collection::vec((0u64..32, 1u64..8), 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut locks = RangeLocks::new();
            let mut held: Vec<usize> = Vec::new();
            let range = |i: usize| asks[i].0..asks[i].0 + asks[i].1;
            for i in 0..asks.len() {
                if locks.acquire(range(i), i) {
                    held.push(i);
                }
            }
            let mut served = 0;
            while !held.is_empty() {
                for (n, a) in held.iter().enumerate() {
                    for b in &held[n + 1..] {
                        prop_assert!(!overlap(&range(*a), &range(*b)));
                    }
                }
                let gone = held.swap_remove(order[served % order.len()].index(held.len()));
                held.extend(locks.release(range(gone).start));
                served += 1;
            }
            prop_assert_eq!(served, asks.len());
        }
    }
}
