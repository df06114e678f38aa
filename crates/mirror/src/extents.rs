//! A set of extents kept as ranges: a dirty map of a nearly full resync costs a few bytes, not one entry per extent.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of extent numbers of one volume, stored as disjoint, non-adjacent half-open ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtentSet {
    /// start → end (exclusive)
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl ExtentSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many extents the set holds.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The extents in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges().flatten()
    }

    /// Adds every extent of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Ranges that touch the new one from either side are merged into it.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
            self.count -= e - s;
        }
        self.ranges.insert(start, end);
        self.count += end - start;
    }

    /// Takes every extent of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            self.count -= e - s;
            for keep in [s..e.min(range.start), s.max(range.end)..e] {
                if !keep.is_empty() {
                    self.count += keep.end - keep.start;
                    self.ranges.insert(keep.start, keep.end);
                }
            }
        }
    }

    /// Whether the set holds every extent of `range` (true for an empty range).
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// Whether the set holds at least one extent of `range`.
    pub fn touches(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.ranges.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    /// The parts of `range` that are not in the set.
    pub fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&s, _)| s);
        for (&s, &e) in self.ranges.range(first..range.end.max(first)) {
            if s > at {
                gaps.push(at..s.min(range.end));
            }
            at = at.max(e);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Takes the lowest extent out and returns it.
    pub fn pop_first(&mut self) -> Option<u64> {
        let (&start, &end) = self.ranges.iter().next()?;
        self.ranges.remove(&start);
        if start + 1 < end {
            self.ranges.insert(start + 1, end);
        }
        self.count -= 1;
        Some(start)
    }

    /// Adds everything of `other`.
    pub fn union(&mut self, other: &ExtentSet) {
        for range in other.ranges() {
            self.insert(range);
        }
    }

    /// Drops every extent at or beyond `end`.
    pub fn truncate(&mut self, end: u64) {
        self.remove(end..u64::MAX);
    }
}

impl FromIterator<Range<u64>> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl FromIterator<u64> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = u64>>(extents: I) -> Self {
        extents.into_iter().map(|extent| extent..extent + 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((0u8..3, 0u64..60, 0u64..12), 1..60), probe in (0u64..60, 0u64..12)) {
            let mut set = ExtentSet::new();
            let mut plain = BTreeSet::new();
            for (kind, start, len) in steps {
                match kind {
                    0 => { set.insert(start..start + len); plain.extend(start..start + len); }
                    1 => { set.remove(start..start + len); plain.retain(|e| !(start..start + len).contains(e)); }
                    _ => { prop_assert_eq!(set.pop_first(), plain.pop_first()); }
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), plain.len() as u64);
                let ranges: Vec<_> = set.ranges().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "merged: {:?}", ranges);
            }
            let range = probe.0..probe.0 + probe.1;
            prop_assert_eq!(set.covers(&range), range.clone().all(|e| plain.contains(&e)));
            prop_assert_eq!(set.touches(&range), range.clone().any(|e| plain.contains(&e)));
            let gaps: Vec<u64> = set.missing(&range).into_iter().flatten().collect();
            prop_assert_eq!(gaps, range.filter(|e| !plain.contains(e)).collect::<Vec<_>>());
        }
    }
}
