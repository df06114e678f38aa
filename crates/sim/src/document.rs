//! The replicated document on volume 0, as little of it as decides where a VM runs. Follows `dyad-core`'s.

use crate::guests::volume;
use crate::machine::VMS;
use crate::owner::Own;
use crate::world::World;
use bytes::Bytes;
use dyad_mirror::{BLOCK, Event, GuestOp, VolumeChange, VolumeId};
use dyad_quorum::Members;
use dyad_types::NodeId;

/// The replicated document: where each VM belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    pub generation: u64,
    pub home: [NodeId; VMS],
}

impl Document {
    fn encode(self) -> Bytes {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(&self.generation.to_le_bytes());
        for (vm, home) in self.home.iter().enumerate() {
            block[8 + vm] = home.index() as u8;
        }
        Bytes::from(block)
    }

    pub fn decode(block: &[u8]) -> Option<Self> {
        let generation = u64::from_le_bytes(block[..8].try_into().ok()?);
        let home = |at: usize| if block[at] == 0 { NodeId::A } else { NodeId::B };
        (generation > 0).then(|| Self { generation, home: [home(8), home(9)] })
    }
}

impl World {
    pub(crate) fn publish(&mut self, node: usize, document: Document) {
        let me = self.nodes[node].id;
        let Some(owner) = self.owner(node) else { return };
        if owner.config.members.has(me) && owner.document.is_none_or(|old| old.generation < document.generation) {
            owner.document = Some(document);
            owner.moving = None;
            self.note(node, format!("document {document:?}"));
        }
    }

    pub(crate) fn own_request(&mut self, node: usize, op: GuestOp, own: Own) {
        let Some(owner) = self.owner(node) else { return };
        owner.next_own += 1;
        let req = owner.next_own;
        owner.own.insert(req, own);
        self.mirror(node, Event::Guest { req, volume: 0, op });
    }

    /// Reads the document: as its writer, or from the follower's copy.
    pub(crate) fn reload(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(owner) = self.owner(node) else { return };
        let member = owner.config.exists() && owner.config.members.has(me);
        if !member || owner.own.values().any(|own| matches!(own, Own::Read)) {
            return;
        }
        let lead = owner.config.lead == me;
        let (block, count) = (0, 1);
        let op = if lead { GuestOp::Read { block, count } } else { GuestOp::Peek { block, count } };
        self.own_request(node, op, Own::Read);
    }

    /// The peer surely runs nothing: what was its is ours. And an administrator's move.
    pub(crate) fn fail_over(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(owner) = self.owner(node) else { return };
        let Some(document) = owner.document else { return };
        let leads = owner.config.lead == me && owner.config.members.has(me);
        let busy = owner.own.values().any(|own| matches!(own, Own::Write(_) | Own::Flush(_)));
        if !leads || busy {
            return;
        }
        let mut home = document.home;
        if owner.peer_vms_allowed && owner.config.members == Members::only(me) {
            home = [me; VMS];
        } else if let Some((vm, to)) = owner.moving
            && owner.config.members == Members::Both
        {
            home[vm] = to;
        }
        if home != document.home {
            let next = Document { generation: document.generation + 1, home };
            self.own_request(node, GuestOp::Write { block: 0, data: next.encode() }, Own::Write(next));
        }
    }

    /// The founding node makes the volumes and the first document.
    pub(crate) fn found(&mut self, node: usize) {
        let sizes = [4096 * 16, crate::guests::BLOCKS * BLOCK as u64, crate::guests::BLOCKS * BLOCK as u64];
        for (id, size) in sizes.into_iter().enumerate() {
            let Some(owner) = self.owner(node) else { return };
            owner.next_own += 1;
            let req = owner.next_own;
            owner.own.insert(req, Own::Create);
            self.mirror(node, Event::Volume { req, change: VolumeChange::Create { id: id as VolumeId, size } });
        }
        self.run(dyad_quorum::SEC);
        let me = self.nodes[node].id;
        let first = Document { generation: 1, home: [me; VMS] };
        self.own_request(node, GuestOp::Write { block: 0, data: first.encode() }, Own::Write(first));
    }

    /// An administrator moves a VM: it is shut down, then the document changes.
    pub(crate) fn move_vm(&mut self, vm: usize, to: NodeId) {
        let lead = (0..2).find(|&node| {
            let me = self.nodes[node].id;
            self.owner(node).is_some_and(|o| o.config.lead == me && o.config.members == Members::Both)
        });
        let Some(lead) = lead else { return };
        let known = self.owner(lead).and_then(|owner| owner.document);
        if known.is_none_or(|document| document.home[vm] == to) || !self.steady() {
            return;
        }
        for node in 0..2 {
            // Shut down, and started again by nobody before the document says where.
            self.end_vm(node, vm);
            if let Some(owner) = self.owner(node) {
                owner.moving = Some((vm, to));
                owner.permits[vm] = false;
            }
            self.mirror(node, Event::Close { volume: volume(vm) });
        }
        self.count("moves");
        self.settle_owner(lead);
    }
}
