//! The setup of a node: one list of questions for the web wizard, the serial console and the seed file.
//!
//! A front end (web page, serial screen, seed file) gets the question from [`next`], offers [`suggestion`], passes the
//! typed text to [`Answers::set`] and shows the [`Problem`]'s sentence if there is one. When no question is left,
//! [`plan`] checks all answers again and returns the typed [`Plan`] that `dyad-node` carries out.
//!
//! This crate must never know terminals, HTML, sockets, or how a plan is carried out. The caller describes the node and
//! its network in [`Surroundings`].
//!
//! **Invariants.** Every front end accepts and refuses the same texts with the same sentences, because none has a check
//! of its own. A [`Plan`] never names a disk that is absent, that belongs to a pair, or whose erasing was not
//! confirmed. No given key is ignored: an unknown or unfitting one is a [`Problem`] that names it.

mod answers;
mod check;
mod choices;
mod id;
mod plan;
mod problem;
mod question;
mod seed;
mod surroundings;
mod typed;

pub use answers::Answers;
pub use check::{Enrolment, enrolment};
pub use choices::ERASE_WORD;
pub use dyad_types::DiskContent;
pub use id::Id;
pub use plan::{NetworkSettings, Plan, Static, WitnessPlan, plan};
pub use problem::Problem;
pub use question::{Choice, Kind, QUESTIONS, Question, confirmation, default, next, question, suggestion};
pub use seed::{SEED_FILE, SEED_LABEL, from_json, from_toml, to_toml};
pub use surroundings::{Disk, Link, Offer, Surroundings};

/// Shortest and longest password, in characters.
pub const PASSWORD: std::ops::RangeInclusive<usize> = 8..=128;

/// Maximum number of ports of the peer link.
pub const LINKS: usize = 4;

/// Number of digits of a pairing code.
pub const CODE_DIGITS: usize = 6;
