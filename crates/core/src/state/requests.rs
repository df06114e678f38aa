//! Handling of the requests of the control socket.

use super::CoreState;
use super::parts::{LeaveWaiter, Pending};
use crate::cgroup_fence;
use crate::event::Event;
use crate::quorum_handle::QuorumInput;
use crate::selftest::WatchdogTest;
use dyad_control::{RefusalCode, Reply, Request, TimelineKind};
use dyad_desired::{Document, Vm};
use std::collections::BTreeSet;
use tokio::sync::oneshot;

impl CoreState {
    /// Answers a request at once, or passes `answer` on to the work that the request begins.
    pub(super) fn handle_request(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        let reply = match request {
            Request::CreatePair(_) | Request::Join(_) => Reply::refused(
                RefusalCode::AlreadySetUp,
                format!("This node already belongs to the pair {}; erase it first (dyad erase).", self.identity.pair),
            ),
            Request::Disks => Reply::Disks { disks: self.handles.pairing.disks() },
            Request::Offers => Reply::Offers { offers: Vec::new() },
            Request::OpenPairingCode => self.open_pairing_code(),
            Request::Document => match self.placement.document().newest() {
                Some(document) => Reply::Document { document: Box::new(document.clone()) },
                None => Reply::refused(
                    RefusalCode::NoDocument,
                    "The pair's document is not readable yet; ask again in a moment.",
                ),
            },
            Request::Change { change } => match self.refused_by_fence_rule(&change, self.me) {
                Some(refusal) => refusal.into(),
                None => return self.change(change, Pending::ReplyTo(answer)),
            },
            Request::Enrol(at) => return self.enrol(at, answer),
            Request::Timeline { since } => Reply::Timeline { events: self.handles.timeline.since(since) },
            Request::Running { vms } => {
                self.set_running_vms(vms.into_iter().collect());
                Reply::Done
            }
            Request::ProveWatchdog => return self.prove_watchdog(answer),
            Request::Erase { disk, confirm } => return self.erase(disk.as_deref(), &confirm, answer),
            Request::Leave => return self.leave(LeaveWaiter::ReplyTo(answer)),
            // Answered by the connection's task (`control_server`).
            Request::Status | Request::Watch | Request::Import { .. } => {
                Reply::refused(RefusalCode::BadRequest, "This request is answered by the socket's task.")
            }
        };
        let _ = answer.send(reply);
    }

    /// Takes the names of the running VMs from `dyad-node`, and notes each start and end in the timeline.
    fn set_running_vms(&mut self, vms: BTreeSet<String>) {
        for vm in vms.difference(&self.access.running) {
            self.handles.timeline.note(TimelineKind::VmRunning, format!("The VM {vm} runs on this node."));
        }
        for vm in self.access.running.difference(&vms) {
            self.handles
                .timeline
                .note(TimelineKind::VmEnded, format!("The VM {vm} does not run on this node any more."));
        }
        self.access.running = vms;
    }

    /// Begins the watchdog test: its thread stops feeding the watchdog, which should reset this node within 3.5 s.
    /// Refused while a VM runs here or is about to start.
    fn prove_watchdog(&mut self, answer: oneshot::Sender<Reply>) {
        let Some(watchdog) = self.self_test.unproven() else {
            let _ = answer.send(Reply::Done);
            return;
        };
        if self.self_test.running {
            let _ = answer.send(Reply::refused(
                RefusalCode::Proving,
                "The watchdog is being proven already: this node restarts now.",
            ));
            return;
        }
        if self.runs_vms() {
            let text = "VMs run on this node: stop them before its watchdog is proven.";
            let _ = answer.send(Reply::refused(RefusalCode::VmRunning, text));
            return;
        }
        self.self_test.running = true;
        let _ = answer.send(Reply::Done);
        self.handles.timeline.note(TimelineKind::Watchdog, "The watchdog is being proven: this node restarts now.");
        let quorum_thread = self.handles.quorum_thread.clone();
        let (state, run, event_sender) =
            (self.handles.paths.state.clone(), self.handles.paths.run.clone(), self.handles.event_sender.clone());
        let prove = move || {
            let test = WatchdogTest { state, run, watchdog, repetition: 0 };
            let Err(error) = test.run(|| quorum_thread.send(QuorumInput::StopFeeding(true)));
            event_sender.send(Event::SelfTestEnded { sentence: error.to_string() });
        };
        std::thread::Builder::new().name("prove".into()).spawn(prove).expect("the system can start a thread");
    }

    /// Ends a watchdog test in which no reset came: the watchdog is fed again, and VMs may start.
    pub(super) fn self_test_ended(&mut self, sentence: String) {
        self.self_test.running = false;
        self.handles.quorum_thread.send(QuorumInput::StopFeeding(false));
        self.handles.timeline.note(TimelineKind::Watchdog, sentence);
    }

    /// Whether a VM process exists on this node, or a permitted VM is meant to run.
    fn runs_vms(&self) -> bool {
        let starts = |document: &Document| {
            self.placement.permits().iter().any(|vm| document.vms.get(vm).is_some_and(Vm::shall_run))
        };
        cgroup_fence::populated(self.handles.paths.vms_cgroup.as_deref())
            || self.placement.document().newest().is_some_and(starts)
    }
}
