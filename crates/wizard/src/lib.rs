//! The setup of a node: one list of questions for the web wizard, the serial console and the seed file.
//!
//! An interactive front end (web page, serial screen) gets the question from [`next`], shows [`suggestion`], passes the
//! typed text to [`Answers::set`] and shows the [`Problem`]'s sentence if there is one. When no question is left,
//! [`plan`] checks all answers again and returns the typed [`SetupPlan`] that `dyad-node` carries out.
//!
//! This crate must never know terminals, HTML, sockets, or how a plan is carried out. The caller describes the node and
//! its network in [`Surroundings`].
//!
//! **Invariants.** Every front end accepts and refuses the same texts with the same sentences, because all checks are
//! in this crate. A [`SetupPlan`] never names a disk that is absent, that belongs to a pair, or whose erasing was not
//! confirmed. No given key is ignored: a key that is unknown, or does not fit the other answers, is a [`Problem`] that
//! names it.

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
pub use check::{WitnessEnrolment, check_enrolment};
pub use choices::ERASE_WORD;
pub use dyad_types::DiskContent;
pub use id::QuestionId;
pub use plan::{NetworkSettings, SetupPlan, StaticAddress, WitnessPlan, plan};
pub use problem::Problem;
pub use question::{Choice, Kind, QUESTIONS, Question, confirmation, default, next, question, suggestion};
pub use seed::{SEED_FILE, SEED_LABEL, from_json, from_toml, to_toml};
pub use surroundings::{Disk, Link, Offer, Surroundings};

/// Minimum and maximum length of a password, in characters.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// Maximum number of ports of the peer link.
pub const MAX_PEER_LINKS: usize = 4;

/// Length of a pairing code, in digits.
pub const PAIRING_CODE_DIGITS: usize = 6;
