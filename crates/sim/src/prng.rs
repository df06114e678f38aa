//! The only source of chance: everything in a run follows from its seed.

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Prng(u64);

impl Prng {
    /// Prng of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0xD1AD_0000_0000_0001)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }

    /// A number in `low..high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// True `of` times in a thousand.
    pub fn chance(&mut self, of: u64) -> bool {
        self.below(1000) < of
    }
}
