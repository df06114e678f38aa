//! Replication and resync of the volumes of a pair, as a pure state machine.
//!
//! One [`Mirror`] runs on each node for all volumes. It takes [`Event`]s and returns [`Action`]s; `dyad-core` carries
//! the actions out on the real pool and the real peer link, the simulator on simulated ones.
//!
//! The crate must never know disks, sockets, clocks, threads or how a membership is decided. It knows a peer, a store
//! that executes commands in order, and the [`View`] that `quorum` gives it.
//!
//! # Guarantees
//!
//! While the caller keeps the ordering rules of [`Action`] and the store keeps the promises of [`StoreCommand`]:
//!
//! 1. **Write.** A write is completed only when the local store and, if the view asks for it, the peer's store hold it.
//!    An acknowledged write survives the failure of either node.
//! 2. **Flush.** A flush is completed only when every write completed before it is durable on each node the view asks
//!    for.
//! 3. **Read.** A read is answered from a replica that holds every acknowledged write, and never shows a write that a
//!    fail-over could still undo: reads wait for overlapping writes in flight.
//! 4. **Dirty.** Without the peer in the in-sync set no write starts before its extents are marked dirty durably.
//!    Marks are cleared only under a two-member view, after both stores were compared and synced.
//! 5. **Order.** Both stores receive the writes of a volume in the order of their numbers; so of two replicas under one
//!    two-member view, the one with the newer [`Stamp`] holds everything the other holds.
//! 6. **Epoch.** A message of an older epoch is not applied and is answered with [`Body::Newer`]. A message of a
//!    newer epoch is applied only after the [`View`] of that epoch has arrived.
//! 7. **Clean.** [`Action::PeerClean`] is given only when each extent that may differ was copied, the peer is synced,
//!    and every write since the copy waits for the peer.
//! 8. **Waiting.** A fault of the peer or the link and a full pool make guest requests wait; they never make them fail.
//! 9. **Lost blocks.** A block that no replica with every acknowledged write can read does not stop a resync or a
//!    reconciliation. It is marked as lost at the receiver: a read of it fails on both nodes, and a write makes it good
//!    on both.
//! 10. **Clocks.** A guest request or change that has waited for the peer for [`Tuning::stuck`], in one session or many or
//!     none, gives [`Action::PeerStuck`]. A local store that does not answer for that long gives
//!     [`Action::StorageStuck`]. Requests that wait for the lease or for space age neither clock. A completed step of a
//!     checkpoint that a command waits for restarts both clocks, on this node and on the peer, for one command or request
//!     by [`Tuning::progress_limit`] in total.
//!
//! **Invariant:** each guarantee is asserted where the code could break it; the asserts stay on in release builds.

mod changes;
mod clocks;
mod copier;
mod damage;
mod dirty;
mod event;
mod flush;
mod guest;
mod handshake;
mod heal;
mod machine;
mod message;
#[cfg(any(test, feature = "testing"))]
pub mod oracle;
mod peer;
mod progress;
mod queue;
mod reconcile;
mod replica;
mod resync;
mod store;
mod types;
mod write;

#[cfg(test)]
mod tests;

pub use event::*;
pub use machine::{Mirror, Phase};
pub use message::{Answer, Body, Change, MAX_RANGES, PeerMessage, PeerOp, PeerOpError};
pub use types::*;
