//! Passes events to the mirror and carries out its actions.

use super::CoreState;
use super::parts::ReplyReceiver;
use super::sentences::lost_text;
use crate::event::Event;
use crate::peer_wire::CoreMessage;
use crate::volume_request::{VolumeError, VolumeResult};
use bytes::Bytes;
use dyad_control::TimelineKind;
use dyad_mirror::Action;
use dyad_quorum as quorum;

impl CoreState {
    /// Passes an event to the mirror and carries out its actions. An action may call this function with a further event:
    /// that one waits until the actions of the event before are carried out.
    pub(super) fn feed_mirror(&mut self, event: dyad_mirror::Event) {
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
            Action::Store { op, command } => self.handles.store.run(op, command),
            Action::Send(message) => self.handles.peer.send(CoreMessage::Mirror(message)),
            Action::Complete { req, result } => {
                let result: VolumeResult = match result {
                    Ok(dyad_mirror::GuestReply::Data(data)) => Ok(data),
                    Ok(dyad_mirror::GuestReply::Done) => Ok(Bytes::new()),
                    Err(error) => Err(VolumeError::Refused(error)),
                };
                match self.replication.take_receiver(req) {
                    Some(ReplyReceiver::Client(done)) => done.complete(result),
                    // Sent as an event, because its handling may pass an event to the mirror, whose actions are just
                    // being carried out.
                    Some(ReplyReceiver::VolumeGc { id }) => {
                        self.handles.event_sender.send(Event::OrphanDeleted { id, result: result.map(drop) });
                    }
                    None => {}
                }
            }
            Action::Disconnect(reason) => {
                self.handles
                    .timeline
                    .note(TimelineKind::SessionReset, format!("The data session is reopened: {reason}."));
                self.handles.peer.disconnect();
            }
            Action::PeerStuck => {
                let text = "Requests of guests, or changes, have waited for the peer for too long.";
                self.handles.timeline.note(TimelineKind::PeerStuck, text);
                self.handles.quorum_thread.tell(quorum::Event::PeerStuck);
            }
            // The quorum machine raises the alarm.
            Action::StorageStuck => self.handles.quorum_thread.tell(quorum::Event::StorageStuck),
            Action::StorageAnswers => self.handles.quorum_thread.tell(quorum::Event::StorageAnswers),
            Action::PeerClean => {
                self.handles.timeline.note(TimelineKind::PeerClean, "The peer's replica is complete again.");
                self.place(dyad_placement::Event::PeerClean);
            }
            Action::PeerDirty => self.place(dyad_placement::Event::PeerDirty),
            Action::NewerEpoch(epoch) => {
                // Only logged: the configuration itself comes with the heartbeats.
                tracing::info!(%epoch, "the peer knows a newer epoch");
            }
            Action::Drained { volume } => tracing::debug!(%volume, "drained"),
            Action::Faulty { error } => self.pool_failed(&error.to_string()),
            Action::Full { peer, full } => {
                let whose = if peer { "The peer's pool" } else { "The pool of this node" };
                let node = if peer { self.me.peer() } else { self.me };
                match full {
                    true => self.replication.full_pools.insert(node),
                    false => self.replication.full_pools.remove(&node),
                };
                let what = if full { "is full: guests that write wait until space is freed" } else { "has room again" };
                self.handles.timeline.note(TimelineKind::PoolFull, format!("{whose} {what}."));
            }
            Action::Healed { volume, extent } => {
                self.replication.healed += 1;
                let text = format!("A damaged extent of volume {volume} was healed from the peer ({extent}).");
                self.handles.timeline.note(TimelineKind::Healed, text);
            }
            Action::Lost { volume, extent, reason } => {
                if self.replication.note_lost() {
                    self.handles.timeline.note(TimelineKind::Lost, lost_text(volume, extent, reason));
                }
            }
            Action::Unreadable { volume, extent } => {
                // A guest repeats the read; the timeline gets one entry for each extent.
                if self.replication.note_unreadable(volume, extent) {
                    let text = format!(
                        "A part of volume {volume} cannot be read (extent {extent}): it comes back with the other node, or from a backup."
                    );
                    self.handles.timeline.note(TimelineKind::Unreadable, text);
                }
            }
            Action::VolumesChanged => self.reload_document(),
            // No resync runs any more. The figures of the last one stay in the status.
            Action::Progress(progress) if progress.since == dyad_types::BootTime::ZERO => {
                self.replication.progress.left = 0
            }
            Action::Progress(progress) => {
                if progress.since != self.replication.progress.since {
                    self.replication.dirty_bytes = progress.copied + progress.left;
                    let text = format!("Copying to the peer what it missed: {} bytes.", self.replication.dirty_bytes);
                    self.handles.timeline.note(TimelineKind::Resync, text);
                }
                if progress.left == 0 && self.replication.progress.left != 0 {
                    let text = format!("{} bytes were copied to the peer.", progress.copied);
                    self.handles.timeline.note(TimelineKind::ResyncDone, text);
                }
                self.replication.progress = progress;
            }
        }
    }
}
