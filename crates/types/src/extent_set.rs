//! [`ExtentSet`]: a set of extents of one volume.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{ExtentIndex, IndexRange};

/// Number of extents in one chunk of an [`ExtentSet`]: 256 MiB of a volume.
pub const CHUNK_EXTENTS: u64 = 4096;
/// Bytes of the bitmap of one chunk, one bit per extent.
pub const CHUNK_BYTES: usize = CHUNK_EXTENTS as usize / 8;

/// Bits of a word of a bitmap in memory.
const WORD_BITS: u64 = u64::BITS as u64;
/// Words of a bitmap in memory.
const WORDS: usize = (CHUNK_EXTENTS / WORD_BITS) as usize;

/// A set of extents of one volume, in chunks of [`CHUNK_EXTENTS`].
///
/// An empty chunk takes no memory, a full chunk one map entry, and any other chunk a map entry and a bitmap of
/// [`CHUNK_BYTES`]. So a set takes about 2 MiB per TiB of the volume at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    /// Chunks that are not empty, by number.
    chunks: BTreeMap<u64, Chunk>,
    /// Sum over all chunks, kept so that it need not be counted.
    len: u64,
}

/// A chunk that is not empty. A chunk that holds all its extents is always [`Chunk::Full`], so that equal sets compare
/// as equal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    Full,
    /// Bit `i % 64` of word `i / 64` stands for extent `i` of the chunk.
    Bits(Box<[u64; WORDS]>),
}

impl Chunk {
    /// The bitmap, also of a full chunk.
    fn bits(&self) -> [u64; WORDS] {
        match self {
            Chunk::Full => [u64::MAX; WORDS],
            Chunk::Bits(bits) => **bits,
        }
    }

    /// Whether extent `at` of the chunk, from 0, is in the set.
    fn has(&self, at: u64) -> bool {
        match self {
            Chunk::Full => true,
            Chunk::Bits(bits) => bits[(at / WORD_BITS) as usize] & 1 << (at % WORD_BITS) != 0,
        }
    }
}

impl ExtentSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of extents in the set, known without counting.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set has no extent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `extent` is in the set.
    #[must_use]
    pub fn contains(&self, extent: ExtentIndex) -> bool {
        let extent = extent.0;
        self.chunks.get(&(extent / CHUNK_EXTENTS)).is_some_and(|chunk| chunk.has(extent % CHUNK_EXTENTS))
    }

    /// Whether all of `extents` are in the set; true for an empty range.
    #[must_use]
    pub fn contains_all(&self, extents: &Range<ExtentIndex>) -> bool {
        let mut rest = extents.start.0..extents.end.0;
        while !rest.is_empty() {
            match self.chunks.get(&(rest.start / CHUNK_EXTENTS)) {
                Some(Chunk::Full) => rest.start = chunk_end(rest.start),
                Some(chunk) if chunk.has(rest.start % CHUNK_EXTENTS) => rest.start += 1,
                _ => return false,
            }
        }
        true
    }

    /// Whether at least one of `extents` is in the set.
    #[must_use]
    pub fn contains_any(&self, extents: &Range<ExtentIndex>) -> bool {
        self.ranges_from(extents.start).next().is_some_and(|range| range.start < extents.end)
    }

    /// Adds all of `extents`; returns the number of those that were not in the set before.
    pub fn insert(&mut self, extents: Range<ExtentIndex>) -> u64 {
        let before = self.len;
        let mut rest = extents.start.0..extents.end.0;
        while !rest.is_empty() {
            let number = rest.start / CHUNK_EXTENTS;
            let end = rest.end.min(chunk_end(rest.start));
            let first = number * CHUNK_EXTENTS;
            self.change(number, rest.start - first..end - first, true);
            rest.start = end;
        }
        self.len - before
    }

    /// Removes all of `extents`; returns the number of those that were in the set.
    pub fn remove(&mut self, extents: Range<ExtentIndex>) -> u64 {
        let before = self.len;
        let extents = extents.start.0..extents.end.0;
        if extents.is_empty() {
            return 0;
        }
        let last = (extents.end - 1) / CHUNK_EXTENTS;
        let numbers: Vec<u64> =
            self.chunks.range(extents.start / CHUNK_EXTENTS..=last).map(|(number, _)| *number).collect();
        for number in numbers {
            let first = number * CHUNK_EXTENTS;
            let start = extents.start.saturating_sub(first);
            let end = (extents.end - first).min(CHUNK_EXTENTS);
            self.change(number, start..end, false);
        }
        before - self.len
    }

    /// Removes every extent at or beyond `end`.
    pub fn truncate(&mut self, end: ExtentIndex) {
        self.remove(end..ExtentIndex(u64::MAX));
    }

    /// Adds all extents of `other`.
    pub fn union(&mut self, other: &ExtentSet) {
        for (number, chunk) in &other.chunks {
            let mut bits = self.chunks.get(number).map_or([0; WORDS], Chunk::bits);
            for (mine, theirs) in bits.iter_mut().zip(chunk.bits()) {
                *mine |= theirs;
            }
            self.replace_chunk(*number, bits);
        }
    }

    /// Removes the lowest extent and returns it.
    pub fn pop_first(&mut self) -> Option<ExtentIndex> {
        let first = self.ranges().next()?.start;
        self.remove(first.run(1));
        Some(first)
    }

    /// The extents in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ExtentIndex> + '_ {
        self.ranges().flat_map(IndexRange::each)
    }

    /// The extents as ranges in ascending order, with at least one missing extent between two ranges.
    #[must_use]
    pub fn ranges(&self) -> Ranges<'_> {
        self.ranges_from(ExtentIndex(0))
    }

    /// The parts of `extents` that are not in the set, in ascending order.
    #[must_use]
    pub fn missing(&self, extents: &Range<ExtentIndex>) -> Vec<Range<ExtentIndex>> {
        let mut gaps = Vec::new();
        let mut at = extents.start;
        for range in self.ranges_from(extents.start).take_while(|range| range.start < extents.end) {
            if at < range.start {
                gaps.push(at..range.start);
            }
            at = range.end;
        }
        if at < extents.end {
            gaps.push(at..extents.end);
        }
        gaps
    }

    /// Numbers of the chunks that are not empty, in ascending order. Chunk `n` begins at extent `n * CHUNK_EXTENTS`.
    pub fn chunk_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.keys().copied()
    }

    /// The bitmap of a chunk: bit `i % 8` of byte `i / 8` stands for extent `i` of the chunk. `None` if the chunk is
    /// empty. Pools store these bitmaps.
    #[must_use]
    pub fn chunk(&self, number: u64) -> Option<[u8; CHUNK_BYTES]> {
        let bits = self.chunks.get(&number)?.bits();
        let mut bytes = [0; CHUNK_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
            *bytes = word.to_le_bytes();
        }
        Some(bytes)
    }

    /// Replaces a chunk by a bitmap, which has the form that [`ExtentSet::chunk`] describes.
    pub fn set_chunk(&mut self, number: u64, bitmap: &[u8; CHUNK_BYTES]) {
        let mut bits = [0; WORDS];
        for (word, bytes) in bits.iter_mut().zip(bitmap.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        self.replace_chunk(number, bits);
    }

    /// The ranges of the set's extents from `start` on.
    fn ranges_from(&self, start: ExtentIndex) -> Ranges<'_> {
        Ranges { set: self, at: start.0 }
    }

    /// Adds or removes the extents `inside` of the chunk `number`. They are counted from the start of the chunk.
    fn change(&mut self, number: u64, inside: Range<u64>, present: bool) {
        if inside == (0..CHUNK_EXTENTS) {
            return self.replace_chunk(number, [if present { u64::MAX } else { 0 }; WORDS]);
        }
        match self.chunks.get_mut(&number) {
            Some(Chunk::Full) if present => {}
            None if !present => {}
            Some(Chunk::Bits(bits)) => {
                let (before, after) = set_bits(bits, inside, present);
                self.len = self.len - before + after;
                if before == after {
                    return;
                }
                if present && bits.iter().all(|word| *word == u64::MAX) {
                    self.chunks.insert(number, Chunk::Full);
                } else if !present && bits.iter().all(|word| *word == 0) {
                    self.chunks.remove(&number);
                }
            }
            other => {
                let mut bits = other.map_or([0; WORDS], |chunk| chunk.bits());
                set_bits(&mut bits, inside, present);
                self.replace_chunk(number, bits);
            }
        }
    }

    /// Replaces the chunk `number` and keeps `len` right.
    fn replace_chunk(&mut self, number: u64, bits: [u64; WORDS]) {
        let ones = |bits: &[u64; WORDS]| bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        let new = ones(&bits);
        let old = match new {
            0 => self.chunks.remove(&number),
            CHUNK_EXTENTS => self.chunks.insert(number, Chunk::Full),
            _ => self.chunks.insert(number, Chunk::Bits(Box::new(bits))),
        };
        self.len = self.len - old.map_or(0, |chunk| ones(&chunk.bits())) + new;
    }
}

/// Sets or clears the bits `inside`; returns how many bits of the words concerned were set before, and are set after
/// it.
fn set_bits(bits: &mut [u64; WORDS], inside: Range<u64>, present: bool) -> (u64, u64) {
    let (mut before, mut after) = (0, 0);
    let mut at = inside.start;
    while at < inside.end {
        let end = inside.end.min((at / WORD_BITS + 1) * WORD_BITS);
        let mask = u64::MAX >> (WORD_BITS - (end - at)) << (at % WORD_BITS);
        let word = &mut bits[(at / WORD_BITS) as usize];
        before += u64::from(word.count_ones());
        *word = if present { *word | mask } else { *word & !mask };
        after += u64::from(word.count_ones());
        at = end;
    }
    (before, after)
}

/// The first extent behind the chunk that contains `extent`.
fn chunk_end(extent: u64) -> u64 {
    (extent / CHUNK_EXTENTS + 1).saturating_mul(CHUNK_EXTENTS)
}

/// The ranges of an [`ExtentSet`], from [`ExtentSet::ranges`].
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    set: &'a ExtentSet,
    /// The next range starts at this extent or later.
    at: u64,
}

impl Ranges<'_> {
    /// The first extent from `self.at` on that is in the set if `present`, or not in the set if not.
    fn next_extent(&self, present: bool) -> Option<u64> {
        let mut at = self.at;
        loop {
            let number = at / CHUNK_EXTENTS;
            match self.set.chunks.get(&number) {
                None if !present => return Some(at),
                None => at = self.set.chunks.range(number..).next()?.0 * CHUNK_EXTENTS,
                Some(Chunk::Full) if present => return Some(at),
                Some(Chunk::Full) => at = chunk_end(at),
                Some(Chunk::Bits(bits)) => {
                    let end = chunk_end(at);
                    while at < end {
                        let inside = at % CHUNK_EXTENTS;
                        let word = bits[(inside / WORD_BITS) as usize];
                        let word = if present { word } else { !word } >> (inside % WORD_BITS);
                        if word != 0 {
                            return Some(at + u64::from(word.trailing_zeros()));
                        }
                        at += WORD_BITS - inside % WORD_BITS;
                    }
                }
            }
        }
    }
}

impl Iterator for Ranges<'_> {
    type Item = Range<ExtentIndex>;

    fn next(&mut self) -> Option<Range<ExtentIndex>> {
        let start = self.next_extent(true)?;
        self.at = start;
        let end = self.next_extent(false)?;
        self.at = end;
        Some(ExtentIndex(start)..ExtentIndex(end))
    }
}

impl FromIterator<Range<ExtentIndex>> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Range<ExtentIndex>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl FromIterator<ExtentIndex> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = ExtentIndex>>(extents: I) -> Self {
        extents.into_iter().map(|extent| extent.run(1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Ranges near the borders of words and chunks, and some that span several chunks.
    fn range() -> impl Strategy<Value = Range<ExtentIndex>> {
        let start = prop_oneof![0u64..130, 4030u64..4230, 8100u64..8300, 0u64..20_000];
        let length = prop_oneof![0u64..12, 0u64..200, 4000u64..9000];
        (start, length).prop_map(|(start, length)| ExtentIndex(start).run(length))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_set_of_extents_behaves_as_a_btree_set(
            steps in prop::collection::vec((0u8..4, range()), 1..30),
            probe in range(),
        ) {
            let mut set = ExtentSet::new();
            let mut tree = BTreeSet::new();
            for (kind, range) in steps {
                let before = tree.len() as u64;
                match kind {
                    0 | 1 => {
                        tree.extend(range.clone().each());
                        prop_assert_eq!(set.insert(range), tree.len() as u64 - before);
                    }
                    2 => {
                        tree.retain(|extent| !range.contains(extent));
                        prop_assert_eq!(set.remove(range), before - tree.len() as u64);
                    }
                    _ => prop_assert_eq!(set.pop_first(), tree.pop_first()),
                }
                prop_assert_eq!(set.len(), tree.len() as u64);
            }
            prop_assert!(set.iter().eq(tree.iter().copied()));
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "merged: {:?}", ranges);
            prop_assert_eq!(set.contains(probe.start), tree.contains(&probe.start));
            prop_assert_eq!(set.contains_all(&probe), probe.clone().each().all(|extent| tree.contains(&extent)));
            prop_assert_eq!(set.contains_any(&probe), probe.clone().each().any(|extent| tree.contains(&extent)));
            let gaps: Vec<_> = set.missing(&probe).into_iter().flat_map(IndexRange::each).collect();
            prop_assert_eq!(gaps, probe.clone().each().filter(|extent| !tree.contains(extent)).collect::<Vec<_>>());

            let mut other = ExtentSet::new();
            for number in set.chunk_numbers() {
                other.set_chunk(number, &set.chunk(number).unwrap());
            }
            prop_assert_eq!(&other, &set);
            other.union(&[probe.clone()].into_iter().collect());
            tree.extend(probe.clone().each());
            prop_assert!(other.iter().eq(tree.iter().copied()));
            prop_assert_eq!(other.len(), tree.len() as u64);
            other.truncate(probe.start);
            prop_assert!(other.iter().eq(tree.range(..probe.start).copied()));
        }
    }

    /// Pools store this bitmap, so its form must not change.
    #[test]
    fn the_lowest_bit_of_a_bitmap_is_the_first_extent() {
        let set: ExtentSet = [CHUNK_EXTENTS, CHUNK_EXTENTS + 9].into_iter().map(ExtentIndex).collect();
        let bitmap = set.chunk(1).unwrap();
        assert_eq!(bitmap[..3], [1, 2, 0]);
        assert_eq!(set.chunk(0), None);
    }
}
