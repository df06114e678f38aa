//! A model of the document, which is replicated in volume 0. It contains only the node of each VM. The model repeats
//! rules of `dyad-core` and is to be replaced by the shipped code.

use crate::core_model::OwnRequest;
use crate::guests::volume;
use crate::machine::{VMS, VmIndex};
use crate::world::World;
use bytes::Bytes;
use dyad_mirror::{Event, GuestOp, VolumeChange};
use dyad_quorum::Members;
use dyad_types::{BLOCK, BlockIndex, NodeId, VolumeId};

/// The replicated document: the node of each VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    pub generation: u64,
    pub vm_node: [NodeId; VMS],
}

impl Document {
    fn encode(self) -> Bytes {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(&self.generation.to_le_bytes());
        for (vm, vm_node) in self.vm_node.iter().enumerate() {
            block[8 + vm] = vm_node.index() as u8;
        }
        Bytes::from(block)
    }

    /// The document in this block; `None` if none was written yet.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let generation = u64::from_le_bytes(block[..8].try_into().ok()?);
        let vm_node = |at: usize| if block[at] == 0 { NodeId::A } else { NodeId::B };
        (generation > 0).then(|| Self { generation, vm_node: [vm_node(8), vm_node(9)] })
    }
}

impl World {
    /// Makes a document the one in force on the node, if the node is a member and has no newer one.
    pub(crate) fn adopt_document(&mut self, node: usize, document: Document) {
        let me = self.nodes[node].id;
        let Some(model) = self.core_model(node) else { return };
        if model.config.members.has(me) && model.document.is_none_or(|old| old.generation < document.generation) {
            model.document = Some(document);
            model.moving = None;
            self.log_line(node, format!("document {document:?}"));
        }
    }

    /// Gives the mirror a request of the daemon itself, for volume 0.
    pub(crate) fn send_own_request(&mut self, node: usize, op: GuestOp, own: OwnRequest) {
        let Some(model) = self.core_model(node) else { return };
        let req = model.next_own_request.advance();
        model.own_requests.insert(req, own);
        self.mirror(node, Event::Guest { req, volume: VolumeId(0), op });
    }

    /// Reads the document: the lead as the writer of volume 0, the follower from its own replica.
    pub(crate) fn reload_document(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(model) = self.core_model(node) else { return };
        let member = model.config.exists() && model.config.members.has(me);
        if !member || model.own_requests.values().any(|own| matches!(own, OwnRequest::Read)) {
            return;
        }
        let lead = model.config.lead == me;
        let (block, count) = (BlockIndex(0), 1);
        let op = if lead { GuestOp::Read { block, count } } else { GuestOp::Peek { block, count } };
        self.send_own_request(node, op, OwnRequest::Read);
    }

    /// Writes a new document if VMs must change their node: all VMs to this node when the peer's fence is over, or the
    /// VM that an operator moves.
    pub(crate) fn fail_over(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(model) = self.core_model(node) else { return };
        let Some(document) = model.document else { return };
        let leads = model.config.lead == me && model.config.members.has(me);
        let busy = model.own_requests.values().any(|own| matches!(own, OwnRequest::Write(_) | OwnRequest::Flush(_)));
        if !leads || busy {
            return;
        }
        let mut vm_node = document.vm_node;
        if model.peer_vms_allowed && model.config.members == Members::only(me) {
            vm_node = [me; VMS];
        } else if let Some((vm, to)) = model.moving
            && model.config.members == Members::Both
        {
            vm_node[vm.0] = to;
        }
        if vm_node != document.vm_node {
            let next = Document { generation: document.generation + 1, vm_node };
            self.send_own_request(
                node,
                GuestOp::Write { block: BlockIndex(0), data: next.encode() },
                OwnRequest::Write(next),
            );
        }
    }

    /// Creates the volumes and the first document, on the first node.
    pub(crate) fn create_pair(&mut self, node: usize) {
        let sizes = [4096 * 16, crate::guests::BLOCKS * BLOCK as u64, crate::guests::BLOCKS * BLOCK as u64];
        for (id, size) in sizes.into_iter().enumerate() {
            let Some(model) = self.core_model(node) else { return };
            let req = model.next_own_request.advance();
            model.own_requests.insert(req, OwnRequest::Create);
            self.mirror(node, Event::Volume { req, change: VolumeChange::Create { id: VolumeId(id as u64), size } });
        }
        self.run(dyad_quorum::SEC);
        let me = self.nodes[node].id;
        let first = Document { generation: 1, vm_node: [me; VMS] };
        self.send_own_request(
            node,
            GuestOp::Write { block: BlockIndex(0), data: first.encode() },
            OwnRequest::Write(first),
        );
    }

    /// Moves a VM as an operator does: shuts it down, then has the document changed. Does nothing unless both mirrors
    /// are steady.
    pub(crate) fn move_vm(&mut self, vm: VmIndex, to: NodeId) {
        let lead = (0..2).find(|&node| {
            let me = self.nodes[node].id;
            self.core_model(node).is_some_and(|o| o.config.lead == me && o.config.members == Members::Both)
        });
        let Some(lead) = lead else { return };
        let known = self.core_model(lead).and_then(|model| model.document);
        if known.is_none_or(|document| document.vm_node[vm.0] == to) || !self.is_steady() {
            return;
        }
        for node in 0..2 {
            // After its end the VM may start only on the node that the new document names.
            self.end_vm(node, vm);
            if let Some(model) = self.core_model(node) {
                model.moving = Some((vm, to));
                model.permits[vm.0] = false;
            }
            self.mirror(node, Event::Close { volume: volume(vm) });
        }
        self.count_event("moves");
        self.settle_core_model(lead);
    }
}
