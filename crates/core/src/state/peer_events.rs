//! What follows from an event of the session with the peer.

use super::CoreState;
use crate::event::Ticket;
use crate::peer_wire::{PeerEvent, Wire};
use dyad_control::{Refusal, RefusalCode, TimelineKind};
use dyad_quorum as quorum;

impl CoreState {
    pub(super) fn peer_says(&mut self, from: PeerEvent) {
        match from {
            PeerEvent::Up { session, path, outbox } => {
                self.replication.connected = true;
                self.out.peer.adopt(outbox);
                self.out.timeline.note(TimelineKind::SessionUp, format!("Data session with the peer over {path}."));
                self.mirror(dyad_mirror::Event::PeerUp { session });
                self.reload_document();
            }
            PeerEvent::Down { session, reason, closed } => {
                if closed {
                    self.out.quorum_thread.tell(quorum::Event::PeerClosed);
                }
                self.replication.connected = false;
                // A session that ended because a message was not understood is still open on this side.
                self.out.peer.disconnect();
                self.out
                    .timeline
                    .note(TimelineKind::SessionDown, format!("Data session with the peer ended: {reason}."));
                self.mirror(dyad_mirror::Event::PeerDown { session });
                for ticket in self.changes.lost() {
                    let text =
                        "The connection to the leading node ended; look whether the change was made and ask again.";
                    self.refuse_change(ticket, Refusal::new(RefusalCode::PeerLost, text));
                }
            }
            PeerEvent::Refused { path, reason } => {
                if self.replication.note_refusal(&reason) {
                    let text = format!("A data session over {path} was refused: {reason}.");
                    self.out.timeline.note(TimelineKind::SessionRefused, text);
                }
            }
            PeerEvent::Wire { session, wire } => match wire {
                Wire::Mirror(message) => self.mirror(dyad_mirror::Event::Peer { session, message }),
                Wire::DocumentChanged { .. } => self.reload_document(),
                Wire::Change { id, change } => self.peer_asks_change(id, &change),
                Wire::Changed { id, reply } => self.peer_has_decided(Ticket(id.0), &reply),
            },
        }
    }
}
