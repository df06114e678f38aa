//! A set of extent numbers as bitmaps of 4096 extents (256 MiB of volume) each.

use std::collections::BTreeMap;
use std::ops::Range;

/// Extents of one chunk of an [`ExtentSet`].
pub(crate) const CHUNK_EXTENTS: u64 = 4096;
/// Bytes of one chunk's bitmap.
pub(crate) const CHUNK_BYTES: usize = CHUNK_EXTENTS as usize / 8;

/// A set of extents of one volume. One bit per extent in every chunk that holds at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    chunks: BTreeMap<u64, Box<[u8; CHUNK_BYTES]>>,
    len: u64,
}

impl ExtentSet {
    /// How many extents are in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `extent` is in the set.
    pub fn contains(&self, extent: u64) -> bool {
        let (chunk, byte, bit) = place(extent);
        self.chunks.get(&chunk).is_some_and(|c| c[byte] & bit != 0)
    }

    /// Adds `extent`; says whether it was new.
    pub fn insert(&mut self, extent: u64) -> bool {
        let (chunk, byte, bit) = place(extent);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_BYTES]));
        let new = chunk[byte] & bit == 0;
        chunk[byte] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Removes `extent`; says whether it was there.
    pub fn remove(&mut self, extent: u64) -> bool {
        let (number, byte, bit) = place(extent);
        let Some(chunk) = self.chunks.get_mut(&number) else { return false };
        let there = chunk[byte] & bit != 0;
        chunk[byte] &= !bit;
        self.len -= u64::from(there);
        if there && chunk.iter().all(|b| *b == 0) {
            self.chunks.remove(&number);
        }
        there
    }

    /// Whether all of `extents` are in the set.
    pub fn contains_all(&self, mut extents: Range<u64>) -> bool {
        extents.all(|e| self.contains(e))
    }

    /// Adds everything in `other`.
    pub fn union(&mut self, other: &ExtentSet) {
        for (number, bits) in &other.chunks {
            let mine = self.chunks.entry(*number).or_insert_with(|| Box::new([0; CHUNK_BYTES]));
            for (a, b) in mine.iter_mut().zip(bits.iter()) {
                self.len += u64::from((!*a & b).count_ones());
                *a |= b;
            }
        }
    }

    /// The extents in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.iter().flat_map(|(number, bits)| {
            (0..CHUNK_EXTENTS)
                .filter(|i| bits[(i / 8) as usize] & (1 << (i % 8)) != 0)
                .map(move |i| number * CHUNK_EXTENTS + i)
        })
    }

    /// Numbers of the chunks that are not empty.
    pub(crate) fn chunk_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.keys().copied()
    }

    /// The bitmap of a chunk, if not empty.
    pub(crate) fn chunk(&self, number: u64) -> Option<&[u8; CHUNK_BYTES]> {
        self.chunks.get(&number).map(|c| &**c)
    }

    /// Replaces a chunk by a stored bitmap.
    pub(crate) fn set_chunk(&mut self, number: u64, bits: [u8; CHUNK_BYTES]) {
        let ones = |c: &[u8; CHUNK_BYTES]| c.iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
        if let Some(old) = self.chunks.remove(&number) {
            self.len -= ones(&old);
        }
        let new = ones(&bits);
        if new > 0 {
            self.len += new;
            self.chunks.insert(number, Box::new(bits));
        }
    }
}

impl FromIterator<u64> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = u64>>(extents: I) -> Self {
        let mut set = ExtentSet::default();
        for extent in extents {
            set.insert(extent);
        }
        set
    }
}

fn place(extent: u64) -> (u64, usize, u8) {
    let inside = extent % CHUNK_EXTENTS;
    (extent / CHUNK_EXTENTS, (inside / 8) as usize, 1 << (inside % 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    proptest::proptest! {
        #[test]
        fn agrees_with_a_tree(ops in proptest::collection::vec((0u64..20_000, proptest::bool::ANY), 0..300)) {
            let mut set = ExtentSet::default();
            let mut tree = BTreeSet::new();
            for (extent, add) in ops {
                if add {
                    assert_eq!(set.insert(extent), tree.insert(extent));
                } else {
                    assert_eq!(set.remove(extent), tree.remove(&extent));
                }
                assert_eq!(set.len(), tree.len() as u64);
            }
            assert!(set.iter().eq(tree.iter().copied()));
            let mut other = ExtentSet::default();
            for number in set.chunk_numbers() {
                other.set_chunk(number, *set.chunk(number).unwrap());
            }
            assert_eq!(other, set);
            other.union(&[5, 19_999].into_iter().collect());
            tree.extend([5, 19_999]);
            assert!(other.iter().eq(tree.iter().copied()));
            assert_eq!(other.len(), tree.len() as u64);
        }
    }
}
