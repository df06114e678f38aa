//! Between the mirror and the rest: carries out its actions, passes on what the peer says.

use super::changes::Pending;
use super::{CoreState, Origin};
use crate::documents::DocumentRequest;
use crate::event::{Event, Ticket};
use crate::peer_wire::{PeerEvent, Wire};
use crate::volume_request::{VolumeError, VolumeResult};
use bytes::Bytes;
use dyad_control::{Refusal, RefusalCode, Reply};
use dyad_desired::Change;
use dyad_mirror::Action;
use dyad_quorum as quorum;

/// Most unreadable extents that are told of.
const UNREADABLE: usize = 100;

impl CoreState {
    /// Feeds the mirror and carries out what it asks for. What comes up on the way is fed afterwards: the actions of one
    /// event are carried out before the next one is taken, or they would mix.
    pub(super) fn mirror(&mut self, event: dyad_mirror::Event) {
        self.waiting.push_back(event);
        if std::mem::replace(&mut self.feeding, true) {
            return;
        }
        let mut actions = Vec::new();
        while let Some(event) = self.waiting.pop_front() {
            self.deps.mirror.handle(crate::clock::now(), event, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
        self.feeding = false;
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Store { op, command } => self.deps.store.run(op, command),
            Action::Send(message) => self.deps.peer.send(Wire::Mirror(message)),
            Action::Complete { req, result } => {
                let result: VolumeResult = match result {
                    Ok(dyad_mirror::Reply::Data(data)) => Ok(data),
                    Ok(dyad_mirror::Reply::Done) => Ok(Bytes::new()),
                    Err(error) => Err(VolumeError::Refused(error)),
                };
                match self.requests.remove(&req) {
                    Some(Origin::Client(done)) => done.complete(result),
                    // Back through the queue: what follows may give the mirror an event, and this one is not over.
                    Some(Origin::VolumeGc { id }) => {
                        self.deps.inbox.send(Event::OrphanDeleted { id, result: result.map(drop) });
                    }
                    None => {}
                }
            }
            Action::Disconnect(reason) => {
                self.deps.timeline.note("session-reset", format!("The data session is opened anew: {reason}."));
                self.deps.peer.disconnect();
            }
            Action::PeerStuck => {
                self.deps.timeline.note("peer-stuck", "The peer does not acknowledge writes.");
                self.deps.quorum_thread.tell(quorum::Event::PeerStuck);
            }
            Action::PeerClean => {
                self.deps.timeline.note("peer-clean", "The peer's replica is complete again.");
                self.peer_is_clean();
            }
            Action::PeerDirty => self.peer_is_dirty(),
            Action::NewerEpoch(epoch) => {
                // Heartbeats carry the configuration itself; this only explains a refused message.
                tracing::info!(epoch, "the peer knows a newer epoch");
            }
            Action::Drained { volume } => tracing::debug!(volume, "drained"),
            Action::Faulty { .. } if self.pool_failed => {}
            Action::Faulty { error } => {
                self.error = Some(format!("The pool of this node refused a request: {error}."));
                self.deps.timeline.note("faulty", format!("The pool of this node refused a request: {error}."));
                self.deps.quorum_thread.tell(quorum::Event::Faulty);
                // What was refused stays unanswered here; the other node, which has all the rest, takes over if it can.
                self.pool_failed = true;
                self.deps.quorum_thread.tell(quorum::Event::Leave);
                // Nothing can be copied to a pool that takes nothing, and trying costs the other node time.
                self.deps.peer.stop();
            }
            Action::Full { peer, full } => {
                let whose = if peer { "The peer's pool" } else { "The pool of this node" };
                let what = if full { "is full: guests that write wait until space is freed" } else { "has room again" };
                self.deps.timeline.note("pool-full", format!("{whose} {what}."));
            }
            Action::Healed { volume, extent } => {
                self.healed += 1;
                let text = format!("A damaged extent of volume {volume} was healed from the peer ({extent}).");
                self.deps.timeline.note("healed", text);
            }
            Action::Lost { volume, extent } => {
                let text =
                    format!("Extent {extent} of volume {volume} is damaged on both nodes; restore it from a backup.");
                self.deps.timeline.note("lost", text);
            }
            Action::Unreadable { volume, extent } => {
                // A guest asks again and again; people are told once.
                if self.unreadable.len() < UNREADABLE && self.unreadable.insert((volume, extent)) {
                    let text = format!(
                        "A part of volume {volume} cannot be read (extent {extent}): it comes back with the other node, or from a backup."
                    );
                    self.deps.timeline.note("unreadable", text);
                }
            }
            Action::VolumesChanged => self.reload_document(),
            // No resync runs any more: the figures of the last one stay.
            Action::Progress(progress) if progress.since == 0 => self.progress.left = 0,
            Action::Progress(progress) => {
                if progress.since != self.progress.since {
                    self.dirty_bytes = progress.copied + progress.left;
                    let text = format!("Copying to the peer what it missed: {} bytes.", self.dirty_bytes);
                    self.deps.timeline.note("resync", text);
                }
                if progress.left == 0 && self.progress.left != 0 {
                    let text = format!("{} bytes were copied to the peer.", progress.copied);
                    self.deps.timeline.note("resync-done", text);
                }
                self.progress = progress;
            }
        }
    }

    /// A node that becomes a member reads the document and starts what is its: not while its VMs are being made ours.
    pub(super) fn peer_is_clean(&mut self) {
        self.clean_deferred = self.failover_in_flight;
        if !self.failover_in_flight {
            self.readmission.told(true);
            self.deps.quorum_thread.tell(quorum::Event::PeerClean);
        }
    }

    /// One that was not called clean yet is not called dirty either.
    pub(super) fn peer_is_dirty(&mut self) {
        if !std::mem::take(&mut self.clean_deferred) {
            self.readmission.told(false);
            self.deps.quorum_thread.tell(quorum::Event::PeerDirty);
        }
    }

    pub(super) fn peer_says(&mut self, from: PeerEvent) {
        match from {
            PeerEvent::Up { session, path, outbox } => {
                self.connected = true;
                self.deps.peer.adopt(outbox);
                self.deps.timeline.note("session-up", format!("Data session with the peer over {path}."));
                self.mirror(dyad_mirror::Event::PeerUp { session });
                self.reload_document();
            }
            PeerEvent::Down { session, reason, closed } => {
                if closed {
                    self.deps.quorum_thread.tell(quorum::Event::PeerClosed);
                }
                self.connected = false;
                // One whose messages are not understood is still open on our side.
                self.deps.peer.disconnect();
                self.deps.timeline.note("session-down", format!("Data session with the peer ended: {reason}."));
                self.mirror(dyad_mirror::Event::PeerDown { session });
                for ticket in self.changes.lost() {
                    let text =
                        "The connection to the leading node ended; look whether the change was made and ask again.";
                    self.refuse_change(ticket, Refusal::new(RefusalCode::PeerLost, text));
                }
            }
            PeerEvent::Refused { path, reason } => {
                if self.refused.as_ref() != Some(&reason) {
                    let text = format!("A data session over {path} was refused: {reason}.");
                    self.deps.timeline.note("session-refused", text);
                    self.refused = Some(reason);
                }
            }
            PeerEvent::Wire { session, wire } => match wire {
                Wire::Mirror(message) => self.mirror(dyad_mirror::Event::Peer { session, message }),
                Wire::DocumentChanged { .. } => self.reload_document(),
                Wire::Change { id, change } => self.peer_asks_change(id, &change),
                Wire::Changed { id, reply } => {
                    let ticket = Ticket(id);
                    if self.changes.answered(ticket) {
                        // The client looks here for what was made, so it is read first.
                        self.reload_document();
                        let result = peer_decision(&reply);
                        if self.deps.documents.send(DocumentRequest::Confirm { ticket, result }).is_err() {
                            self.refuse_change(ticket, Refusal::stopping());
                        }
                    }
                }
            },
        }
    }

    /// The other node passes on a change because this one leads.
    fn peer_asks_change(&mut self, id: u64, change: &str) {
        let Ok(change) = serde_json::from_str::<Change>(change) else {
            let text = "The leading node does not understand this change; update it.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::PeerUnreadable, text)));
        };
        if !self.leads() {
            let text = "The pair is just changing who leads it; ask again.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::MembershipChanged, text)));
        }
        self.change(change, Pending::ForwardToPeer { id });
    }

    /// Tells the other node what became of a change that it passed on.
    pub(super) fn answer_peer(&mut self, id: u64, result: Result<(), Refusal>) {
        let reply = serde_json::to_string(&Reply::from(result)).unwrap_or_default();
        self.deps.peer.send(Wire::Changed { id, reply });
    }
}

/// The leading node's answer as the outcome of the change.
fn peer_decision(reply: &str) -> Result<(), Refusal> {
    match serde_json::from_str(reply) {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(refusal)) => Err(refusal),
        _ => Err(Refusal::new(RefusalCode::PeerUnreadable, "The leading node's answer is not understood.")),
    }
}
