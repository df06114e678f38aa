//! Changes of the volume table: executed on both nodes, one at a time, before they are answered.

use crate::clocks::PeerWait;
use crate::event::{Action, StoreCommand};
use crate::machine::{Mirror, Phase};
use crate::message::Body;
use crate::peer::Ask;
use crate::store::Purpose;
use crate::types::*;
use std::collections::VecDeque;

number! {
    /// Identifies one execution of a change.
    pub(crate) struct VolumeChangeId;
}

#[derive(Debug)]
struct Pending {
    id: VolumeChangeId,
    req: Option<RequestId>,
    change: VolumeChange,
    /// Given to the stores; otherwise it waits for its turn.
    running: bool,
    local: Option<bool>,
    peer: Option<bool>,
    peer_wait: PeerWait,
}

/// The queue of changes; only its front runs.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    next: VolumeChangeId,
    queue: VecDeque<Pending>,
}

impl Changes {
    /// The clocks of all changes.
    pub fn waits(&mut self) -> impl Iterator<Item = &mut PeerWait> {
        self.queue.iter_mut().map(|pending| &mut pending.peer_wait)
    }

    /// `Some(true)`: the change at the front waits for the peer's reply. `Some(false)`: it waits for its turn. `None`: it
    /// waits for the local store, or there is none.
    pub fn waits_for_peer(&self) -> Option<bool> {
        let front = self.queue.front()?;
        if front.running { (front.peer == Some(false)).then_some(true) } else { Some(false) }
    }
}

impl Mirror {
    pub(crate) fn on_change(&mut self, req: RequestId, change: VolumeChange) {
        let sound = match change {
            VolumeChange::Create { size, .. } => size > 0 && size.is_multiple_of(BLOCK as u64),
            VolumeChange::Resize { id, size } => {
                size.is_multiple_of(BLOCK as u64) && self.volumes.get(&id).is_some_and(|v| size >= v.size)
            }
            VolumeChange::Delete { .. } => true,
        };
        if !sound {
            self.out.push(Action::Complete { req, result: Err(GuestError::Range) });
            return;
        }
        self.push_change(Some(req), change);
    }

    fn push_change(&mut self, req: Option<RequestId>, change: VolumeChange) {
        let id = self.changes.next.advance();
        self.changes.queue.push_back(Pending {
            id,
            req,
            change,
            running: false,
            local: None,
            peer: None,
            peer_wait: PeerWait::default(),
        });
    }

    /// The session ended, so it is unknown whether the peer executed the running change: the change runs again later.
    pub(crate) fn requeue_changes(&mut self) {
        let writes_need_peer = self.writes_need_peer();
        for pending in &mut self.changes.queue {
            // A change that does not need the peer continues.
            if pending.running && (pending.peer.is_some() || writes_need_peer) {
                pending.running = false;
            }
        }
        if self.view.is_some_and(|view| !view.me) {
            for pending in std::mem::take(&mut self.changes.queue) {
                if let Some(req) = pending.req {
                    self.out.push(Action::Complete { req, result: Err(GuestError::NotInSync) });
                }
            }
        }
    }

    /// A resync begins. A change that runs only at this store was in neither table when the tables were compared, so
    /// it runs again at both stores.
    pub(crate) fn rerun_changes(&mut self) {
        self.changes.queue.iter_mut().for_each(|pending| pending.running = false);
    }

    pub(crate) fn pump_changes(&mut self) {
        let ready = match self.phase {
            Phase::Steady | Phase::Source => true,
            Phase::Down | Phase::Handshake => self.in_sync() && !self.writes_need_peer(),
            Phase::Reconcile | Phase::Target => false,
        };
        let Some(pending) = self.changes.queue.front_mut() else {
            return;
        };
        if !ready || pending.running {
            return;
        }
        pending.id = self.changes.next.advance();
        pending.running = true;
        pending.local = None;
        let send = matches!(self.phase, Phase::Steady | Phase::Source);
        pending.peer = send.then_some(false);
        let (id, change) = (pending.id, pending.change);
        self.command(StoreCommand::Volume(change), Purpose::Change { id, change });
        if send {
            let op = self.ask(Ask::Change { id });
            self.send(Body::Volume { op, change });
        }
    }

    fn pending(&mut self, id: VolumeChangeId) -> Option<&mut Pending> {
        self.changes.queue.front_mut().filter(|pending| pending.id == id && pending.running)
    }

    pub(crate) fn on_change_stored(&mut self, id: VolumeChangeId, change: VolumeChange, ok: bool) {
        if ok {
            // Also for a change that was already answered: the table in memory must equal the table of the store.
            self.apply_change(change);
        }
        if let Some(pending) = self.pending(id) {
            pending.local = Some(ok);
            self.finish_change();
        }
    }

    pub(crate) fn on_change_held(&mut self, id: VolumeChangeId, ok: bool) {
        if let Some(pending) = self.pending(id) {
            if ok {
                pending.peer = Some(true);
            } else {
                pending.peer = None;
                pending.local = Some(false);
            }
            self.finish_change();
        }
    }

    fn finish_change(&mut self) {
        let Some(pending) = self.changes.queue.front() else {
            return;
        };
        let (Some(ok), true) = (pending.local, pending.peer != Some(false)) else {
            return;
        };
        let Some(pending) = self.changes.queue.pop_front() else {
            return;
        };
        if !ok && let VolumeChange::Create { id, .. } = pending.change {
            // The volume may exist at one store: it is deleted at both.
            self.push_change(None, VolumeChange::Delete { id });
        }
        if let Some(req) = pending.req {
            let result = if ok { Ok(GuestReply::Done) } else { Err(GuestError::Disk) };
            self.out.push(Action::Complete { req, result });
        }
    }
}
