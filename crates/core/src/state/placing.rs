//! Passes events to placement and carries out its actions.

use super::CoreState;
use super::parts::{Pending, ReplyReceiver, ServedVolume};
use crate::cgroup_fence;
use crate::documents::DocumentInput;
use crate::event::Event;
use crate::guests::VolumeBackend;
use crate::peer_wire::CoreMessage;
use crate::volume_request::VolumeError;
use dyad_blockdev::{Config, Server};
use dyad_control::{Refusal, RefusalCode, TimelineKind};
use dyad_desired::Change;
use dyad_desired::limits::DISK_QUEUES;
use dyad_mirror::VolumeChange;
use dyad_placement::{Action, CgroupCommand, ChangeRefusal, DocumentRequest, LeaveEnd, LocalState};
use dyad_types::{NodeId, VolumeId};
use std::sync::Arc;
use std::time::Duration;

impl CoreState {
    /// Passes an event to placement and carries out its actions. If actions are being carried out already, those of this
    /// event follow them.
    pub(super) fn place(&mut self, event: dyad_placement::Event) {
        let mut actions = Vec::new();
        self.placement.handle(crate::clock::now(), event, &mut actions);
        self.carry_out_placement(actions);
    }

    /// Derives writers, device servers, permits, the fail-over and the clearing of unused volumes from the state.
    pub(super) fn settle_placement(&mut self) {
        let mut actions = Vec::new();
        self.placement.settle_access(crate::clock::now(), &self.replication.mirror, &mut actions);
        self.carry_out_placement(actions);
        let mut actions = Vec::new();
        let local = LocalState {
            now: crate::clock::now(),
            mirror: &self.replication.mirror,
            vms_exist: cgroup_fence::populated(self.handles.paths.vms_cgroup.as_deref()),
            watchdog_test: self.self_test.running,
        };
        self.placement.settle_permits(&local, &mut actions);
        self.carry_out_placement(actions);
    }

    pub(super) fn carry_out_placement(&mut self, actions: Vec<Action>) {
        if !self.placement_actions.begin(actions) {
            return;
        }
        while let Some(action) = self.placement_actions.next() {
            self.carry_out_placement_action(action);
        }
    }

    fn carry_out_placement_action(&mut self, action: Action) {
        match action {
            Action::Mirror(event) => self.feed_mirror(event),
            Action::Quorum(event) => self.handles.quorum_thread.tell(event),
            Action::StartServer { volume, size } => self.start_server(volume, size),
            Action::EndServer(volume) => drop(self.access.servers.remove(&volume)),
            Action::AllowStarts { kills } => {
                let _ = self.handles.cgroup_fence.send(CgroupCommand::AllowStarts { kills });
            }
            Action::Permitted(vm) => {
                self.handles.timeline.note(TimelineKind::VmPermitted, format!("The VM {vm} may run on this node."));
            }
            Action::TellPeer { generation } => self.handles.peer.send(CoreMessage::DocumentKnown { generation }),
            Action::ReadDocument { lead, term } => {
                let _ = self.handles.documents.send(DocumentInput::Request(DocumentRequest::Reload { lead, term }));
            }
            Action::FailOver { survivor } => self.change(Change::FailOver { survivor }, Pending::FailOver),
            Action::DropImport { name, id } => self.change(Change::DropImport { name, id }, Pending::Nothing),
            Action::DeleteOrphan(id) => {
                self.change_volume_table(VolumeChange::Delete { id }, ReplyReceiver::VolumeGc { id });
            }
            Action::After { delay, timer } => {
                let event_sender = self.handles.event_sender.clone();
                self.handles.runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_nanos(delay)).await;
                    event_sender.send(Event::TimedOut(timer));
                });
            }
            Action::LeaveEnded(end) => self.leave_ended(end),
            Action::EndProcess => self.end_process(),
        }
    }

    fn start_server(&mut self, volume: VolumeId, size: u64) {
        let socket = self.handles.paths.run.join("vhost").join(format!("{volume}.sock"));
        let backend = Arc::new(VolumeBackend::new(self.handles.event_sender.clone(), volume, size));
        let config = Config { queues: DISK_QUEUES, ..Config::new(format!("dyad-{volume}")) };
        match Server::start(&socket, backend, config) {
            Ok(server) => {
                self.access.servers.insert(volume, ServedVolume { socket, _server: server });
                self.place(dyad_placement::Event::ServerStarted(volume));
            }
            Err(e) => tracing::error!(%volume, error = %e, "the volume's device cannot be served"),
        }
    }

    /// The answers to a leave are sent before the process ends.
    fn end_process(&mut self) {
        let text = "No other node takes over: the storage service restarts and opens the pool again.";
        self.handles.timeline.note(TimelineKind::Faulty, text);
        tracing::error!("{text}");
        self.place(dyad_placement::Event::Stop);
    }

    /// Answers the clients that wait for the leave, which has ended.
    fn leave_ended(&mut self, end: LeaveEnd) {
        let result = match end {
            LeaveEnd::Complete => Ok(()),
            LeaveEnd::TimedOut => {
                let text = "The other node does not take over: it is away. Ask again when it is back.";
                Err(Refusal::new(RefusalCode::NoPeer, text))
            }
            LeaveEnd::ProcessEnds => Err(Refusal::stopping()),
        };
        self.tell_leave_waiters(&result);
    }

    /// Takes the result of the deletion of an orphaned volume.
    pub(super) fn orphan_deleted(&mut self, id: VolumeId, result: Result<(), VolumeError>) {
        self.place(dyad_placement::Event::OrphanDeleted { deleted: result.is_ok() });
        if let Err(error) = result {
            tracing::info!(volume = %id, %error, "an orphaned volume still takes room");
        }
    }

    /// The refusal of a change that `asking` asks for and that could give a VM's disks a second runner. `asking` is this
    /// node for its own clients, the peer for a change that the peer passed on.
    pub(super) fn refused_by_fence_rule(&self, change: &Change, asking: NodeId) -> Option<Refusal> {
        let refused = self.placement.refuse_change(crate::clock::now(), change, asking, |vm| self.has_process(vm))?;
        let code = match refused {
            ChangeRefusal::OtherNode { .. } => RefusalCode::OtherNode,
            ChangeRefusal::VmRunning { .. } => RefusalCode::VmRunning,
            ChangeRefusal::NotForClients => RefusalCode::BadRequest,
            ChangeRefusal::PeerFence { .. } | ChangeRefusal::NoProof { .. } => RefusalCode::PeerFence,
        };
        Some(Refusal::new(code, refused.to_string()))
    }

    /// Whether the kernel knows a process of this VM on this node.
    fn has_process(&self, vm: &str) -> bool {
        let cgroup = self.handles.paths.vms_cgroup.as_ref().map(|vms| vms.join(vm));
        cgroup_fence::populated(cgroup.as_deref())
    }
}
