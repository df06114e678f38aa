//! Writers, device servers and permits, each derived from membership and document.

use super::Placement;
use crate::event::{Action, LocalState};
use crate::lifecycle::Lifecycle;
use crate::mutants::Mutant;
use crate::parts::VmsReport;
use dyad_desired::Document;
use dyad_mirror::{Mirror, Writer};
use dyad_quorum as quorum;
use dyad_types::{BootTime, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Interval at which the quorum thread is told again whether VM processes may exist here, in nanoseconds.
const VMS_REPORT_INTERVAL: u64 = 1_000_000_000;

impl Placement {
    /// Names of the VMs that may run here.
    #[must_use]
    pub fn permits(&self) -> &BTreeSet<String> {
        &self.access.permits
    }

    /// Whether volumes are served, as far as this node's right to run VMs goes.
    #[must_use]
    pub fn serving(&self) -> bool {
        self.access.serving
    }

    /// Whether the volume has a device server that runs.
    #[must_use]
    pub fn serves(&self, volume: VolumeId) -> bool {
        self.access.served.contains(&volume)
    }

    /// The writer of a volume that the document names; `None` for any other volume.
    #[must_use]
    pub fn writer_of(&self, volume: VolumeId) -> Option<Writer> {
        self.access.writers.get(&volume).copied()
    }

    /// Derives the writers of the volumes, and which device servers must run. The actions must be carried out, and the
    /// servers that could be started reported, before [`Self::settle_permits`].
    pub fn settle_access(&mut self, now: BootTime, mirror: &Mirror, actions: &mut Vec<Action>) {
        self.retry_document_read(now, actions);
        self.settle_writers(now, actions);
        self.tell_peer(actions);
        self.settle_servers(mirror, actions);
    }

    /// Derives the permits, what the quorum thread must know of the VMs, the fail-over, and the clearing of volumes that are
    /// no longer used.
    pub fn settle_permits(&mut self, local: &LocalState<'_>, actions: &mut Vec<Action>) {
        let permits = self.permitted_vms(local);
        self.report_vms(local, !permits.is_empty() || local.vms_exist, actions);
        if !permits.is_empty() && self.access.starts_allowed != Some(self.access.kills) {
            self.access.starts_allowed = Some(self.access.kills);
            actions.push(Action::AllowStarts { kills: self.access.kills });
        }
        actions.extend(permits.difference(&self.access.permits).cloned().map(Action::Permitted));
        self.access.permits = permits;
        self.fail_over(local.now, actions);
        self.report_deferred_clean(actions);
        self.settle_imports(local, actions);
        self.settle_volume_gc(local, actions);
    }

    /// Tells the mirror the writer of each volume. The device server of a volume that this node may no longer write ends,
    /// so that no request of this membership term is carried out in a later one.
    pub(crate) fn settle_writers(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let mut wanted: BTreeMap<VolumeId, Writer> = BTreeMap::new();
        wanted.insert(VolumeId::DOCUMENT, self.writer(self.membership.config.lead));
        if let Some(document) = self.authoritative_document() {
            for volume in document.volumes.values() {
                wanted.extend(volume.ids().map(|id| (id, self.writer(volume.primary))));
            }
        }
        for (volume, writer) in &mut wanted {
            if *writer == Writer::Me && *volume != VolumeId::DOCUMENT && !self.is_handed_over(now, *volume) {
                *writer = Writer::None;
            }
        }
        let mut told = std::mem::take(&mut self.access.writers);
        for (volume, writer) in &wanted {
            if told.remove(volume) == Some(*writer) {
                continue;
            }
            if *writer != Writer::Me {
                // The server ends before the mirror refuses the open requests: a guest that still runs must not get an I/O
                // error.
                self.end_server(*volume, actions);
            }
            actions.push(Action::Mirror(dyad_mirror::Event::Writer { volume: *volume, writer: *writer }));
        }
        for volume in told.into_keys() {
            self.end_server(volume, actions);
            actions.push(Action::Mirror(dyad_mirror::Event::Writer { volume, writer: Writer::None }));
        }
        self.access.writers = wanted;
    }

    /// The writer of a volume with this primary. A primary outside the in-sync set writes nothing: the volumes of a lost
    /// node have no writer until its fence is over and the document names a new primary.
    fn writer(&self, primary: NodeId) -> Writer {
        match (self.membership.config.members.has(primary), primary == self.me) {
            (false, _) => Writer::None,
            (true, true) => Writer::Me,
            (true, false) => Writer::Peer,
        }
    }

    fn end_server(&mut self, volume: VolumeId, actions: &mut Vec<Action>) {
        if self.access.served.remove(&volume) {
            actions.push(Action::EndServer(volume));
        }
    }

    pub(crate) fn end_all_servers(&mut self, actions: &mut Vec<Action>) {
        actions.extend(std::mem::take(&mut self.access.served).into_iter().map(Action::EndServer));
    }

    /// Decides whether volumes are served. A node that leaves or was decommissioned serves nothing and permits no VM, whatever
    /// the quorum machine says about its right to run them.
    pub(crate) fn settle_serving(&mut self) {
        let running = self.lifecycle == Lifecycle::Running || self.mutants.has(Mutant::ServeWhileLeaving);
        let may_serve = self.is_member() && running && !self.access.killed;
        self.access.serving = may_serve && (self.access.serving || self.membership.right.may_run);
    }

    /// The quorum thread kills the VMs of this node: nothing is served until it reports the right to run again.
    pub(crate) fn killing(&mut self) {
        self.access.killed = true;
        self.count_kill();
        self.settle_serving();
    }

    /// Ends all access before the VMs are killed for a decommission. The cgroup's fence counts this kill as well: if nothing
    /// is erased, VMs start again only with a permit that knows of it.
    pub(crate) fn decommission(&mut self, actions: &mut Vec<Action>) {
        self.end_all_servers(actions);
        self.access.permits.clear();
        self.count_kill();
    }

    fn count_kill(&mut self) {
        self.access.kills += 1;
        if !self.mutants.has(Mutant::TellVmsAtEdges) {
            self.access.vms_reported = None;
        }
    }

    /// Starts and ends device servers: one for each disk of each VM that the document places on this node, while VMs may be
    /// served.
    fn settle_servers(&mut self, mirror: &Mirror, actions: &mut Vec<Action>) {
        self.settle_serving();
        let wanted: BTreeMap<VolumeId, u64> = match self.authoritative_document() {
            Some(document) if self.access.serving => my_disks(document, self.me),
            _ => BTreeMap::new(),
        };
        let surplus: Vec<VolumeId> = self.access.served.iter().filter(|id| !wanted.contains_key(id)).copied().collect();
        for volume in surplus {
            self.end_server(volume, actions);
            actions.push(Action::Mirror(dyad_mirror::Event::Close { volume }));
        }
        for (volume, size) in wanted {
            let writes = self.access.writers.get(&volume) == Some(&Writer::Me);
            if writes && !self.access.served.contains(&volume) && mirror.volumes().iter().any(|info| info.id == volume)
            {
                actions.push(Action::StartServer { volume, size });
            }
        }
    }

    /// The VMs of this node whose disks are all served.
    fn permitted_vms(&self, local: &LocalState<'_>) -> BTreeSet<String> {
        // A node whose watchdog is being proven restarts: no VM starts here.
        let may_start = self.access.serving && !local.watchdog_test;
        let Some(document) = self.authoritative_document().filter(|_| may_start) else { return BTreeSet::new() };
        let is_served =
            |disk: &String| document.volumes.get(disk).is_some_and(|volume| self.access.served.contains(&volume.id));
        let vms = document.vms.iter().filter(|(_, vm)| vm.config.node == self.me);
        vms.filter(|(_, vm)| vm.config.disks.iter().all(is_served)).map(|(name, _)| name.clone()).collect()
    }

    /// Tells the quorum thread whether VM processes may exist here: at each change, every second and after every kill, so
    /// that its belief and the kernel's state do not stay different. "None" is told only when no permit is left and the VMs'
    /// cgroup is empty.
    fn report_vms(&mut self, local: &LocalState<'_>, vms: bool, actions: &mut Vec<Action>) {
        let told = self.access.vms_reported;
        let fresh =
            |at: BootTime| local.now.since(at) < VMS_REPORT_INTERVAL || self.mutants.has(Mutant::TellVmsAtEdges);
        if !told.is_some_and(|told| told.vms == vms && fresh(told.at)) {
            self.access.vms_reported = Some(VmsReport { vms, at: local.now });
            actions.push(Action::Quorum(quorum::Event::VmsRunning(vms)));
        }
    }
}

/// Ids and sizes of the volumes of the VMs that the document places on `me`.
fn my_disks(document: &Document, me: NodeId) -> BTreeMap<VolumeId, u64> {
    let disks = document.vms.values().filter(|vm| vm.config.node == me).flat_map(|vm| &vm.config.disks);
    disks.filter_map(|disk| document.volumes.get(disk)).map(|volume| (volume.id, volume.size)).collect()
}
