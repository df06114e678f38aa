//! Writers, device servers and permits, each derived from membership and document.

use super::CoreState;
use super::parts::ServedVolume;
use crate::cgroup_fence::{self, CgroupCommand};
use crate::guests::VolumeBackend;
use dyad_blockdev::{Config, Server};
use dyad_control::TimelineKind;
use dyad_desired::Document;
use dyad_desired::limits::DISK_QUEUES;
use dyad_mirror::Writer;
use dyad_quorum as quorum;
use dyad_types::{NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Interval at which the quorum thread is told again whether VM processes may exist here.
const VMS_REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl CoreState {
    /// Tells the mirror the writer of each volume. The device server of a volume that this node may no longer write ends,
    /// so that no request of this membership term is carried out in a later one.
    pub(super) fn settle_writers(&mut self) {
        let mut wanted: BTreeMap<VolumeId, Writer> = BTreeMap::new();
        wanted.insert(VolumeId::DOCUMENT, self.writer(self.membership.config.lead));
        if let Some(document) = self.authoritative_document() {
            for volume in document.volumes.values() {
                wanted.extend(volume.ids().map(|id| (id, self.writer(volume.primary))));
            }
        }
        for (volume, writer) in &wanted {
            let before = self.access.writers.insert(*volume, *writer);
            if before == Some(*writer) {
                continue;
            }
            if *writer != Writer::Me {
                // The server ends before the mirror refuses the open requests: a guest that still runs must not get an I/O
                // error.
                self.access.servers.remove(volume);
            }
            self.feed_mirror(dyad_mirror::Event::Writer { volume: *volume, writer: *writer });
        }
        let forgotten: Vec<VolumeId> =
            self.access.writers.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for volume in forgotten {
            self.access.writers.remove(&volume);
            self.access.servers.remove(&volume);
            self.feed_mirror(dyad_mirror::Event::Writer { volume, writer: Writer::None });
        }
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

    /// Decides whether volumes are served. A node that leaves or was decommissioned serves nothing and permits no VM, whatever
    /// the quorum machine says about its right to run them.
    pub(super) fn settle_serving(&mut self) {
        let may_serve = self.membership.is_member() && self.lifecycle.is_running() && !self.access.killed;
        self.access.serving = may_serve && (self.access.serving || self.membership.snapshot.may_run);
    }

    /// Starts and ends device servers: one for each disk of each VM that the document places on this node, while VMs may be
    /// served.
    pub(super) fn settle_servers(&mut self) {
        self.settle_serving();
        let wanted: BTreeMap<VolumeId, u64> = match self.authoritative_document() {
            Some(document) if self.access.serving => my_disks(document, self.me),
            _ => BTreeMap::new(),
        };
        let surplus: Vec<VolumeId> =
            self.access.servers.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in surplus {
            self.access.servers.remove(&id);
            self.feed_mirror(dyad_mirror::Event::Close { volume: id });
        }
        for (id, size) in wanted {
            if self.access.servers.contains_key(&id) || !self.replication.has_volume(id) {
                continue;
            }
            let socket = self.handles.paths.run.join("vhost").join(format!("{id}.sock"));
            let backend = Arc::new(VolumeBackend::new(self.handles.event_sender.clone(), id, size));
            let config = Config { queues: DISK_QUEUES, ..Config::new(format!("dyad-{id}")) };
            match Server::start(&socket, backend, config) {
                Ok(server) => {
                    self.access.servers.insert(id, ServedVolume { socket, _server: server });
                }
                Err(e) => tracing::error!(volume = %id, error = %e, "the volume's device cannot be served"),
            }
        }
    }

    /// Permits the VMs of this node whose disks are all served. The quorum thread is told that VMs run before a permit is
    /// shown, and that none run only when no permit is left and the VMs' cgroup is empty. It is told again every second and
    /// after every kill, so that its belief and the kernel's state do not stay different.
    pub(super) fn settle_permits(&mut self) {
        let permits: BTreeSet<String> = match self.authoritative_document() {
            // A node whose watchdog is being proven restarts: no VM starts here.
            Some(document) if self.access.serving && !self.self_test.running => document
                .vms
                .iter()
                .filter(|(_, vm)| vm.config.node == self.me)
                .filter(|(_, vm)| vm.config.disks.iter().all(|disk| self.is_served(document, disk)))
                .map(|(name, _)| name.clone())
                .collect(),
            _ => BTreeSet::new(),
        };
        let vms = !permits.is_empty() || cgroup_fence::populated(self.handles.paths.vms_cgroup.as_deref());
        let known = |(told, at): (bool, Instant)| told == vms && at.elapsed() < VMS_REPORT_INTERVAL;
        if !self.access.vms_reported.is_some_and(known) {
            self.access.vms_reported = Some((vms, Instant::now()));
            self.handles.quorum_thread.tell(quorum::Event::VmsRunning(vms));
        }
        if !permits.is_empty() && self.access.starts_allowed != Some(self.access.kills) {
            self.access.starts_allowed = Some(self.access.kills);
            let kills = self.access.kills;
            let _ = self.handles.cgroup_fence.send(CgroupCommand::AllowStarts { kills });
        }
        for vm in permits.difference(&self.access.permits) {
            self.handles.timeline.note(TimelineKind::VmPermitted, format!("The VM {vm} may run on this node."));
        }
        self.access.permits = permits;
        self.fail_over();
    }

    fn is_served(&self, document: &Document, disk: &str) -> bool {
        document.volumes.get(disk).is_some_and(|volume| self.access.servers.contains_key(&volume.id))
    }
}

/// Ids and sizes of the volumes of the VMs that the document places on `me`.
fn my_disks(document: &Document, me: NodeId) -> BTreeMap<VolumeId, u64> {
    let disks = document.vms.values().filter(|vm| vm.config.node == me).flat_map(|vm| &vm.config.disks);
    disks.filter_map(|disk| document.volumes.get(disk)).map(|volume| (volume.id, volume.size)).collect()
}
