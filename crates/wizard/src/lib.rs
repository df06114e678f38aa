//! The setup of a node: one list of questions for the web wizard, the serial console and the seed file.
//!
//! A face (web page, serial screen, seed file) asks [`next`] which question comes, offers [`suggestion`], gives the
//! typed text to [`Answers::set`] and shows the [`Problem`]'s sentence if there is one. When no question is left,
//! [`plan`] checks everything once more and gives the typed [`Plan`] that `dyad-node` carries out.
//!
//! This crate must never know: terminals, HTML, sockets, or how a plan is carried out. What the machine looks like
//! comes in as [`Surroundings`].
//!
//! **Invariants.** Every face accepts and refuses the same texts with the same sentences, because none has a check
//! of its own. A [`Plan`] never names a disk that is not there, is part of a pair, or was not typed out for erasing.
//! Nothing that was given is silently ignored: an unknown or unfitting key is a [`Problem`] that names it.

mod answers;
mod check;
mod plan;
mod problem;
mod question;
mod seed;
mod surroundings;

pub use answers::Answers;
pub use check::enrolment;
pub use plan::{Network, Plan, Static, WitnessPlan, plan};
pub use problem::Problem;
pub use question::{Choice, Id, Kind, QUESTIONS, Question, confirmation, default, next, question, suggestion};
pub use seed::{SEED_FILE, SEED_LABEL, from_json, from_toml, to_toml};
pub use surroundings::{Disk, DiskContent, Link, Offer, Surroundings};

/// Port of a witness when its address names none (TCP).
pub const WITNESS_PORT: u16 = 7403;

/// Shortest and longest password, in characters.
pub const PASSWORD: std::ops::RangeInclusive<usize> = 8..=128;

/// Most ports of the peer link.
pub const LINKS: usize = 4;

/// Digits of a pairing code.
pub const CODE_DIGITS: usize = 6;
