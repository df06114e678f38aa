//! The values of placement, in parts with invariants of their own. None knows [`crate::Placement`] or another part.

mod access;
mod document;
mod membership;
mod peer_knowledge;
mod readmission;
mod volumes;

pub(crate) use access::{Access, VmsReport};
pub use document::{DocumentCopy, MembershipTerm};
pub(crate) use membership::{FailOver, Membership};
pub(crate) use peer_knowledge::{Awaited, PeerKnowledge};
pub(crate) use readmission::{Readmission, view};
pub(crate) use volumes::{DROP_IMPORT_INTERVAL, Imports, VolumeGc};
