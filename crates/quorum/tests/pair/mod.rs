//! A whole pair in one thread: two machines with the shipped `Quorum`, a witness with the shipped acceptor, a lossy
//! network, disks that may lose what is being written, watchdogs, and a writer in each VM. One seed, virtual time.
//! After every event the oracle checks I1 to I5.

// Each test file uses its own part of this.
#![allow(dead_code)]

mod daemon;
mod machine;
mod oracle;
pub mod scene;
mod world;

pub use world::Pair;

/// Splitmix64: small, seeded, good enough to choose faults.
#[derive(Clone, Debug)]
pub struct Prng(pub u64);

impl Prng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// True in `parts` of a thousand.
    pub fn chance(&mut self, parts: u64) -> bool {
        self.below(1000) < parts
    }
}
