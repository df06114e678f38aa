//! Handling of the events of the session with the peer.

use super::CoreState;
use crate::peer_wire::{CoreMessage, PeerEvent};
use dyad_control::{Refusal, RefusalCode, TimelineKind};
use dyad_placement::ChangeTicket;
use dyad_quorum as quorum;

impl CoreState {
    pub(super) fn handle_peer_event(&mut self, from: PeerEvent) {
        match from {
            PeerEvent::Up { session, path, outbox } => {
                self.replication.session = Some(session);
                self.handles.peer.use_session(outbox);
                self.handles.timeline.note(TimelineKind::SessionUp, format!("Data session with the peer over {path}."));
                self.feed_mirror(dyad_mirror::Event::PeerUp { session });
                self.place(dyad_placement::Event::SessionUp);
            }
            PeerEvent::Down { session, .. } | PeerEvent::Message { session, .. }
                if self.replication.session != Some(session) =>
            {
                // The end of this session was reported before, as after a message that was not understood. It must not end
                // a newer session, and what it still brings does not count.
            }
            PeerEvent::Down { session, reason, closed } => {
                if closed {
                    self.handles.quorum_thread.tell(quorum::Event::PeerClosed);
                }
                self.replication.session = None;
                // A session that ended because a message was not understood is still open on this side.
                self.handles.peer.disconnect();
                self.handles
                    .timeline
                    .note(TimelineKind::SessionDown, format!("Data session with the peer ended: {reason}."));
                self.feed_mirror(dyad_mirror::Event::PeerDown { session });
                self.place(dyad_placement::Event::SessionDown);
                for ticket in self.changes.take_all_forwarded() {
                    let text =
                        "The connection to the leading node ended; look whether the change was made and ask again.";
                    self.refuse_change(ticket, Refusal::new(RefusalCode::PeerLost, text));
                }
            }
            PeerEvent::Refused { path, reason } => {
                if self.replication.note_refusal(&reason) {
                    let text = format!("A data session over {path} was refused: {reason}.");
                    self.handles.timeline.note(TimelineKind::SessionRefused, text);
                }
            }
            // The room in the queue is free when the message is handled.
            PeerEvent::Message { session, message, room: _room } => match message {
                CoreMessage::Mirror(message) => self.feed_mirror(dyad_mirror::Event::Peer { session, message }),
                CoreMessage::DocumentKnown { generation } => {
                    self.place(dyad_placement::Event::PeerKnows { generation });
                }
                CoreMessage::Change { id, change } => self.peer_asks_change(id, &change),
                CoreMessage::Changed { id, reply } => self.peer_has_decided(ChangeTicket(id.0), &reply),
            },
        }
    }
}
