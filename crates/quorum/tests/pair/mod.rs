//! A simulated pair in one thread: two machines with the shipped `Quorum`, a witness with the shipped acceptor, a lossy
//! network, disks that may lose a write under way, watchdogs, and a writer in each VM. One seed, virtual time. After
//! every event the oracle checks I1 to I5.

// Each test file uses only a part of these functions.
#![allow(dead_code)]

mod daemon;
pub mod fixtures;
mod machine;
mod oracle;
mod world;

pub use world::Pair;
