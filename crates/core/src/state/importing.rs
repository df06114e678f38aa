//! Imports: an image is written to a new volume of the pool, and then one change of the document has the new volume replace
//! the old one. Until that change the old volume is not written.

use super::CoreState;
use super::parts::Pending;
use crate::event::ImportTarget;
use dyad_control::{Refusal, RefusalCode};
use dyad_desired::Change;
use dyad_types::VolumeId;
use tokio::sync::oneshot;

/// Gets the new volume for an image, or the refusal of the import.
type OpenedSender = oneshot::Sender<Result<ImportTarget, Refusal>>;

impl CoreState {
    /// Has a new volume made for an image. Refused on a node that does not write the old volume, and while the volume
    /// belongs to a VM.
    pub(super) fn open_import(&mut self, name: String, bytes: u64, answer: OpenedSender) {
        if let Err(refusal) = self.may_import(&name, bytes) {
            let _ = answer.send(Err(refusal));
            return;
        }
        if !self.placement.begin_import(&name) {
            let text = format!("An import into {name} is already running.");
            let _ = answer.send(Err(Refusal::new(RefusalCode::Busy, text)));
            return;
        }
        let change = Change::BeginImport { name: name.clone() };
        self.change(change, Pending::ImportBegun { volume: name, answer });
    }

    fn may_import(&self, name: &str, bytes: u64) -> Result<(), Refusal> {
        let Some(document) = self.placement.authoritative_document() else {
            return Err(Refusal::new(
                RefusalCode::NoDocument,
                "The pair's document is not readable yet; ask again in a moment.",
            ));
        };
        let Some(volume) = document.volumes.get(name) else {
            return Err(Refusal::new(RefusalCode::UnknownName, format!("There is no volume named {name}.")));
        };
        if bytes == 0 || bytes > volume.size {
            let text = format!(
                "The image has {bytes} bytes and the volume {name} has {}: make the volume larger.",
                volume.size
            );
            return Err(Refusal::new(RefusalCode::DoesNotFit, text));
        }
        if let Some(vm) = document.vm_using(name) {
            let text =
                format!("The volume {name} is a disk of the VM {vm}: import before the VM is made, or delete the VM.");
            return Err(Refusal::new(RefusalCode::VolumeInUse, text));
        }
        if volume.primary != self.me || !self.placement.is_member() {
            let text = format!("The volume {name} is written on node {}: send the image there.", volume.primary);
            return Err(Refusal::new(RefusalCode::OtherNode, text));
        }
        Ok(())
    }

    /// Gives the new volume to the task that receives the image, or the refusal of `BeginImport`.
    pub(super) fn import_begun(&mut self, name: String, result: Result<(), Refusal>, answer: OpenedSender) {
        // The new volume may have come into the document in this batch of events: the mirror must know its writer before
        // the first write.
        self.settle_placement();
        let volume = self.placement.authoritative_document().and_then(|document| document.volumes.get(&name));
        let room = volume.and_then(|volume| volume.incoming.map(|id| (id, volume.size)));
        let opened = match (result, room) {
            (Ok(()), Some((id, size))) => Ok(ImportTarget { id, size }),
            (Ok(()), None) => Err(Refusal::new(
                RefusalCode::MembershipChanged,
                "The pair is just changing who leads it; send the image again.",
            )),
            (Err(refusal), _) => Err(refusal),
        };
        let is_open = opened.is_ok();
        // A task that gets a volume closes the import. Without a volume, or without the task, the import ends here.
        if answer.send(opened).is_err() || !is_open {
            self.placement.end_import(&name);
        }
    }

    /// Ends an import. If the image is `whole`, the new volume `id` replaces the old one; else it is dropped.
    pub(super) fn close_import(
        &mut self,
        name: String,
        id: VolumeId,
        whole: bool,
        answer: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let volume = name.clone();
        let change = if whole { Change::FinishImport { name, id } } else { Change::DropImport { name, id } };
        self.change(change, Pending::ImportClosed { volume, answer });
    }

    /// Answers the task of an import with the decision of `FinishImport` or `DropImport`.
    pub(super) fn import_closed(
        &mut self,
        volume: &str,
        result: Result<(), Refusal>,
        answer: oneshot::Sender<Result<(), Refusal>>,
    ) {
        self.placement.end_import(volume);
        let _ = answer.send(result);
    }
}
