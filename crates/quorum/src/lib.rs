//! Decides which nodes are in sync, which node may run virtual machines, and when a lost node is fenced.
//!
//! A register decides the configuration of a pair epoch by epoch: one Paxos instance per epoch over three
//! acceptors, the nodes A and B and the witness W. Each node leases its right to run from its peer. This
//! crate is the rules as a state machine: [`Quorum`] takes [`Event`]s and the time, and returns
//! [`Action`]s. The witness uses [`acceptor`] alone. The rules: `docs/internals/quorum-rules.md`.
//!
//! It must never know: sockets, files, clocks, threads, the content of a volume, which virtual machines exist.
//!
//! **Invariants.**
//! * I1 no two nodes run a VM at the same time. I2 a running VM's replica holds every acknowledged write. I3 one chosen
//!   configuration per epoch. I4 each member of the newest chosen configuration holds every acknowledged write.
//!   I5 one lead per epoch.
//! * A message that depends on the record is emitted only after [`Event::Persisted`]: [`Quorum`] holds the durable
//!   record and at most one record that is being written. Rights that the new record gives begin when it is durable;
//!   rights that it takes away end at once.
//! * The safety of data never depends on time. Time protects only I1.
//! * A ballot is sent to one acceptor only, always with the same content.

pub mod acceptor;
mod codec;
pub mod event;
pub mod lease;
mod machine;
pub mod message;
pub mod mutants;
mod peer;
pub mod proposer;
mod removal_history;
pub mod rules;
pub mod run_state;
pub mod slots;
#[cfg(test)]
mod testing;
pub mod timing;
pub mod types;
mod witness_state;

pub use event::{Action, Alarm, Event, KillReason, MAX_PATHS, Note, Proof, Reason, Setup, WitnessReply, WriteToken};
pub use machine::Quorum;
pub use message::{
    AcceptorReply, Datagram, DatagramBody, Echo, Health, Heartbeat, Learn, ReplyBody, TryDecide, VoteRefusal,
    WitnessRequest, WitnessRequestId,
};
pub use run_state::{Fence, MissingVote, RunState};
pub use timing::{MS, SEC, Timing};
pub use types::{
    Acceptor, AcceptorRecord, Ballot, BootTime, Config, Exception, MAX_EXCEPTIONS, Members, Nanos, WitnessId,
};
