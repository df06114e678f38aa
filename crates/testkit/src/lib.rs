//! Fixtures that tests of several crates share: a pseudo-random generator, and the QEMU side of vhost-user.
//!
//! A fixture that builds values of one crate is in that crate, behind a feature: `dyad_control::testing`,
//! `dyad_pool::sim`. A program that ships must not depend on this crate; test programs may.
//!
//! This crate must not depend on another crate of the workspace.
//!
//! **Invariants**
//! * [`Prng`] gives the same numbers for the same seed in every version: tests keep seeds that found a bug.

mod prng;
#[cfg(feature = "vhost")]
pub mod vhost;

pub use prng::Prng;
