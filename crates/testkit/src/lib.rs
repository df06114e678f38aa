//! What the tests of several crates need and no crate below them owns.
//!
//! A fixture that builds the values of one crate lies in that crate, behind a feature: `dyad_control::testing`,
//! `dyad_pool::sim`. A program that ships must never depend on this crate; test programs may.
//!
//! This crate must never know a crate of the workspace.
//!
//! **Invariants**
//! * [`Prng`] gives the same numbers for the same seed for ever: seeds that found a bug are kept in tests.

mod prng;
#[cfg(feature = "vhost")]
pub mod vhost;

pub use prng::Prng;
