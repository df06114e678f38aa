//! The rules: [`Placement`] holds the parts, and each file beside this one says what some events mean for several of them.

mod access;
mod document;
mod fence_rule;
mod handover;
mod leaving;
mod membership;
mod volumes;

pub use fence_rule::ChangeRefusal;

use crate::event::{Action, Event};
use crate::lifecycle::Lifecycle;
use crate::mutants::Mutants;
use crate::parts::{Access, DocumentCopy, Imports, Membership, PeerKnowledge, VolumeGc};
use dyad_desired::Document;
use dyad_quorum::Config;
use dyad_types::{BootTime, NodeId};

/// The placement rules of one node.
///
/// The caller passes each [`Event`] to [`Self::handle`] and carries out the actions in order. After each batch of events it
/// calls [`Self::settle_access`], carries out its actions, reports the servers that it could start, and calls
/// [`Self::settle_permits`].
#[derive(Debug)]
pub struct Placement {
    me: NodeId,
    /// The start of this daemon.
    started: BootTime,
    membership: Membership,
    document: DocumentCopy,
    peer_knowledge: PeerKnowledge,
    access: Access,
    imports: Imports,
    volume_gc: VolumeGc,
    lifecycle: Lifecycle,
    mutants: Mutants,
}

impl Placement {
    /// Placement on the node `me` at the start of its daemon. `config` is the configuration that the register holds, `cached`
    /// the document that an earlier run of the daemon has stored.
    #[must_use]
    pub fn new(me: NodeId, config: Config, cached: Option<Document>, now: BootTime) -> Self {
        Self {
            me,
            started: now,
            membership: Membership::new(config),
            document: DocumentCopy::new(cached, now),
            peer_knowledge: PeerKnowledge::default(),
            access: Access::default(),
            imports: Imports::default(),
            volume_gc: VolumeGc::default(),
            lifecycle: Lifecycle::Running,
            mutants: Mutants::NONE,
        }
    }

    /// The same with a planted bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_mutants(self, mutants: Mutants) -> Self {
        Self { mutants, ..self }
    }

    /// Handles one event and appends what must be done, in order.
    pub fn handle(&mut self, now: BootTime, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Config(config) => self.set_config(now, config, actions),
            Event::AckSet { members, reports } => self.set_ack_set(members, reports, actions),
            Event::Freezing => self.hold(true, actions),
            Event::Killing => self.killing(),
            Event::PeerVmsAllowed => {
                self.membership.peer_vms_allowed = true;
                self.fail_over(now, actions);
            }
            Event::RightToRun(right) => self.set_right_to_run(right, actions),
            Event::PeerClean => self.peer_is_clean(actions),
            Event::PeerDirty => self.peer_is_dirty(actions),
            Event::FailOverDecided => self.fail_over_decided(now, actions),
            Event::DocumentRead { document, term } => self.set_document(now, document, term),
            Event::DocumentReadEnded => self.document.read_ended(now),
            Event::ReadDocument => self.read_document(now, actions),
            Event::SessionUp => {
                self.peer_knowledge.session_begins();
                self.read_document(now, actions);
            }
            Event::SessionDown => self.peer_knowledge.session_ended(),
            Event::PeerKnows { generation } => self.peer_knows(now, generation, actions),
            Event::ServerStarted(volume) => self.access.server_started(volume),
            Event::Leave => self.leave(now, actions),
            Event::CancelLeave => self.cancel_leave(actions),
            Event::LeaveDone => self.leave_done(actions),
            Event::TimedOut(timer) => self.timed_out(timer, actions),
            Event::PoolFailed => self.pool_failed(now, actions),
            Event::Decommission => self.decommission(actions),
            Event::Decommissioned => self.lifecycle = Lifecycle::Decommissioned,
            Event::Stop => self.lifecycle = Lifecycle::Stopping,
            Event::OrphanDeleted { deleted } => self.volume_gc.deletion_ended(now, deleted),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.membership.config
    }

    /// Whether this node is in the in-sync set. `false` for a node that was never admitted to its pair.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership.config.exists() && self.membership.config.members.has(self.me)
    }

    /// Whether this node leads the pair: it writes the document and applies its changes.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.membership.config.lead == self.me && self.membership.config.members.has(self.me)
    }

    /// Incarnation of the peer's store in the configuration; 0 = no peer was admitted.
    #[must_use]
    pub fn peer_incarnation(&self) -> u64 {
        self.membership.config.incarnations[self.me.peer().index()]
    }

    /// What this node does as a member: it runs, leaves, was decommissioned or stops.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// The document as this node knows it.
    #[must_use]
    pub fn document(&self) -> &DocumentCopy {
        &self.document
    }

    /// The document that decides placement: only a member has one, and only if it was read in the current membership term.
    #[must_use]
    pub fn authoritative_document(&self) -> Option<&Document> {
        self.document.of_this_term().filter(|_| self.is_member())
    }
}
