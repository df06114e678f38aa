use std::ops::Range;

/// The pseudo-random generator splitmix64: seeded, and good enough to choose operations and faults; not for secrets.
#[derive(Debug, Clone)]
pub struct Prng(u64);

impl Prng {
    /// A generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, uniform over all of `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, almost uniform (remainder of a 64-bit number).
    ///
    /// # Panics
    /// `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        self.next_u64() % bound
    }

    /// A number in `range`, its end excluded; distributed as [`Prng::below`].
    ///
    /// # Panics
    /// The range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "{range:?} is empty");
        range.start + self.below(range.end - range.start)
    }

    /// True with the probability `per_mille` / 1000.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the reference implementation (Vigna, splitmix64.c) for the seed 0.
    #[test]
    fn a_seed_gives_the_numbers_of_the_reference_implementation() {
        let mut prng = Prng::new(0);
        assert_eq!(prng.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(prng.next_u64(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(prng.next_u64(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut prng = Prng::new(1);
        assert!((0..1000).all(|_| prng.below(3) < 3 && (5..7).contains(&prng.within(5..7))));
        assert!((0..1000).all(|_| prng.chance(1000) && !prng.chance(0)));
    }
}
