//! Feeds the mirror and carries out what it asks for.

use super::CoreState;
use super::parts::{FailOver, Origin};
use crate::event::Event;
use crate::peer_wire::Wire;
use crate::volume_request::{VolumeError, VolumeResult};
use bytes::Bytes;
use dyad_control::TimelineKind;
use dyad_mirror::Action;
use dyad_quorum as quorum;

impl CoreState {
    /// Feeds the mirror and carries out what it asks for. An event that comes up on the way follows when the actions of the
    /// one before it are carried out.
    pub(super) fn mirror(&mut self, event: dyad_mirror::Event) {
        if !self.replication.begin_feeding(event) {
            return;
        }
        let mut actions = Vec::new();
        while let Some(event) = self.replication.next_event() {
            self.replication.mirror.handle(crate::clock::now(), event, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Store { op, command } => self.out.store.run(op, command),
            Action::Send(message) => self.out.peer.send(Wire::Mirror(message)),
            Action::Complete { req, result } => {
                let result: VolumeResult = match result {
                    Ok(dyad_mirror::GuestReply::Data(data)) => Ok(data),
                    Ok(dyad_mirror::GuestReply::Done) => Ok(Bytes::new()),
                    Err(error) => Err(VolumeError::Refused(error)),
                };
                match self.replication.close(req) {
                    Some(Origin::Client(done)) => done.complete(result),
                    // Back through the queue: what follows may give the mirror an event, and this one is not over.
                    Some(Origin::VolumeGc { id }) => {
                        self.out.inbox.send(Event::OrphanDeleted { id, result: result.map(drop) });
                    }
                    None => {}
                }
            }
            Action::Disconnect(reason) => {
                self.out.timeline.note(TimelineKind::SessionReset, format!("The data session is reopened: {reason}."));
                self.out.peer.disconnect();
            }
            Action::PeerStuck => {
                self.out.timeline.note(TimelineKind::PeerStuck, "The peer does not acknowledge writes.");
                self.out.quorum_thread.tell(quorum::Event::PeerStuck);
            }
            Action::PeerClean => {
                self.out.timeline.note(TimelineKind::PeerClean, "The peer's replica is complete again.");
                self.peer_is_clean();
            }
            Action::PeerDirty => self.peer_is_dirty(),
            Action::NewerEpoch(epoch) => {
                // Heartbeats carry the configuration itself; this only explains a refused message.
                tracing::info!(%epoch, "the peer knows a newer epoch");
            }
            Action::Drained { volume } => tracing::debug!(%volume, "drained"),
            Action::Faulty { error } => self.pool_failed(&error.to_string()),
            Action::Full { peer, full } => {
                let whose = if peer { "The peer's pool" } else { "The pool of this node" };
                let what = if full { "is full: guests that write wait until space is freed" } else { "has room again" };
                self.out.timeline.note(TimelineKind::PoolFull, format!("{whose} {what}."));
            }
            Action::Healed { volume, extent } => {
                self.replication.healed += 1;
                let text = format!("A damaged extent of volume {volume} was healed from the peer ({extent}).");
                self.out.timeline.note(TimelineKind::Healed, text);
            }
            Action::Lost { volume, extent } => {
                let text =
                    format!("Extent {extent} of volume {volume} is damaged on both nodes; restore it from a backup.");
                self.out.timeline.note(TimelineKind::Lost, text);
            }
            Action::Unreadable { volume, extent } => {
                // A guest asks again and again; people are told once.
                if self.replication.note_unreadable(volume, extent) {
                    let text = format!(
                        "A part of volume {volume} cannot be read (extent {extent}): it comes back with the other node, or from a backup."
                    );
                    self.out.timeline.note(TimelineKind::Unreadable, text);
                }
            }
            Action::VolumesChanged => self.reload_document(),
            // No resync runs any more: the figures of the last one stay.
            Action::Progress(progress) if progress.since == dyad_types::BootTime::ZERO => {
                self.replication.progress.left = 0
            }
            Action::Progress(progress) => {
                if progress.since != self.replication.progress.since {
                    self.replication.dirty_bytes = progress.copied + progress.left;
                    let text = format!("Copying to the peer what it missed: {} bytes.", self.replication.dirty_bytes);
                    self.out.timeline.note(TimelineKind::Resync, text);
                }
                if progress.left == 0 && self.replication.progress.left != 0 {
                    let text = format!("{} bytes were copied to the peer.", progress.copied);
                    self.out.timeline.note(TimelineKind::ResyncDone, text);
                }
                self.replication.progress = progress;
            }
        }
    }

    /// The peer's replica is complete. A peer that the quorum machine knows to be clean may become a member at any moment,
    /// read the document and start the VMs that it names: not while they are being failed over to this node.
    pub(super) fn peer_is_clean(&mut self) {
        match &mut self.membership.fail_over {
            FailOver::InFlight { clean_deferred } => *clean_deferred = true,
            FailOver::Idle => {
                self.membership.readmission.report(true);
                self.out.quorum_thread.tell(quorum::Event::PeerClean);
            }
        }
    }

    /// The peer's replica is no longer complete. A "clean" that was deferred is dropped instead, as the quorum machine does
    /// not know of it.
    pub(super) fn peer_is_dirty(&mut self) {
        if let FailOver::InFlight { clean_deferred } = &mut self.membership.fail_over
            && std::mem::take(clean_deferred)
        {
            return;
        }
        self.membership.readmission.report(false);
        self.out.quorum_thread.tell(quorum::Event::PeerDirty);
    }
}
