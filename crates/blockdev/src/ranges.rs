//! [`RangeLocks`]: locks of ranges of a volume, so that changes of the same block run one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Locks of byte ranges. The caller identifies the holder of a lock by a key.
///
/// Held ranges never overlap. Overlapping ranges are locked in the order of the requests: a request also waits if its
/// range overlaps that of an earlier request that waits.
pub(crate) struct RangeLocks<K> {
    /// Start of a range → (its end, key of the holder).
    held: BTreeMap<u64, (u64, K)>,
    /// Requests that wait, the oldest first.
    waiting: VecDeque<(Range<u64>, K)>,
}

impl<K: Copy> RangeLocks<K> {
    pub fn new() -> Self {
        Self { held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Locks `range` for `key` and returns true, or queues the request and returns false.
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

    /// Unlocks the range that starts at `start`. Returns the keys of the queued requests that hold their locks from now
    /// on, the oldest first.
    ///
    /// # Panics
    ///
    /// If no held range starts at `start`.
    pub fn release(&mut self, start: u64) -> Vec<K> {
        let released = self.held.remove(&start);
        assert!(released.is_some(), "only a held range can be released");
        let mut granted = Vec::new();
        let mut still_waiting: VecDeque<(Range<u64>, K)> = VecDeque::new();
        for (range, key) in std::mem::take(&mut self.waiting) {
            if self.is_held(&range) || still_waiting.iter().any(|(other, _)| overlap(other, &range)) {
                still_waiting.push_back((range, key));
            } else {
                self.held.insert(range.start, (range.end, key));
                granted.push(key);
            }
        }
        self.waiting = still_waiting;
        granted
    }

    /// Whether a part of `range` is locked.
    fn is_held(&self, range: &Range<u64>) -> bool {
        // Held ranges are disjoint. So among the held ranges that start before the end of `range`, the last one ends
        // last.
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
    fn overlapping_requests_get_their_locks_in_order() {
        let mut locks = RangeLocks::new();
        assert!(locks.acquire(0..4, 'a'));
        assert!(!locks.acquire(2..8, 'b'));
        assert!(!locks.acquire(6..9, 'c'), "overlaps the waiting b");
        assert!(locks.acquire(9..10, 'd'));
        assert_eq!(locks.release(0), vec!['b']);
        assert_eq!(locks.release(2), vec!['c']);
    }

    proptest! {
        #[test]
        fn held_ranges_are_disjoint_and_each_request_gets_its_lock(
            requests in prop::collection::vec((0u64..32, 1u64..8), 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut locks = RangeLocks::new();
            let mut held: Vec<usize> = Vec::new();
            let range = |i: usize| requests[i].0..requests[i].0 + requests[i].1;
            for i in 0..requests.len() {
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
                let released = held.swap_remove(order[served % order.len()].index(held.len()));
                held.extend(locks.release(range(released).start));
                served += 1;
            }
            prop_assert_eq!(served, requests.len());
        }
    }
}
