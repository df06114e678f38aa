//! A node that belongs to no pair yet: answers the few requests that setup needs, and carries setup out.

use crate::event::{ControlRequest, Event, EventSender};
use crate::options::Options;
use crate::timeline::Timeline;
use crate::watchdog::Watchdog;
use dyad_control::{Offer, Phase, Refusal, RefusalCode, Reply, Request, Status, TimelineKind, WatchdogStatus};
use dyad_link::discovery::{self, Endpoint, Listener};
use dyad_link::tls;
use dyad_provision::erase::Confirmation;
use dyad_provision::identity::NodeIdentity;
use dyad_provision::paths::NodePaths;
use dyad_provision::refusal::of_error;
use dyad_provision::{disks, erase, setup};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Interval at which the links are read for announcements of first nodes.
const OFFER_SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// A node without a pair. It answers requests about disks, offers, setup, erasure and the timeline; the rest is refused.
pub struct BlankNode {
    /// The command line.
    pub options: Options,
    /// This node's key.
    pub tls: tls::TlsIdentity,
    /// Lists the interfaces on which announcements of first nodes are received. Called at each opening of the sockets.
    pub endpoints: fn() -> Vec<Endpoint>,
    /// Takes each new status; the tasks of the control socket read it.
    pub status: watch::Sender<Status>,
    /// The runtime for pairing.
    pub runtime: tokio::runtime::Handle,
    /// The queue to which control server and pairing send events; [`BlankNode::run`] takes them from its other end.
    pub event_sender: EventSender,
    /// The opened watchdog; `None` = this node has none. Fed while the node is blank, then passed on to the quorum thread.
    pub watchdog: Option<Watchdog>,
    /// The watchdog's kind and proof as they were at start, for the status.
    pub watchdog_status: WatchdogStatus,
    /// The process was told to end while a setup or an erasure ran; `false` at start.
    pub stopping: bool,
}

impl BlankNode {
    /// Runs until the node belongs to a pair. Returns its identity and the watchdog; `None` if the process is told to stop
    /// before.
    pub fn run(mut self, events: &Receiver<Event>) -> Option<(NodeIdentity, Option<Watchdog>)> {
        let mut timeline = Timeline::new(None);
        let mut listener = Listener::open(&(self.endpoints)());
        let mut opened_at = Instant::now();
        let mut offers: Vec<discovery::DiscoveredOffer> = Vec::new();
        if !matches!(NodeIdentity::unfinished(&self.options.state), Ok(None)) {
            // A setup or an erasure was interrupted: its files and pool labels are erased before the first request is
            // answered, because a new setup must not meet them.
            match self.carry_out(events, |_, _| Ok(())) {
                Err(refusal) => timeline.note(TimelineKind::Refused, refusal.sentence),
                _ => timeline.note(TimelineKind::Erased, "What was left of a pair on this node is erased."),
            }
            self.show(Phase::Blank);
        }
        loop {
            if self.stopping {
                return None;
            }
            let event = match events.recv_timeout(OFFER_SCAN_INTERVAL) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            if let Some(watchdog) = &mut self.watchdog {
                // No VM can run on a blank node.
                watchdog.feed();
            }
            // An interface may appear after the start: while no offer is heard, the sockets are opened again every 5 s.
            if opened_at.elapsed() > Duration::from_secs(5) && offers.is_empty() {
                listener = Listener::open(&(self.endpoints)());
                opened_at = Instant::now();
            }
            offers = listener.offers(Instant::now());
            let (request, answer) = match event {
                Some(Event::Control(ControlRequest { request, answer })) => (request, answer),
                Some(Event::OpenImport { answer, .. }) => {
                    let _ = answer.send(Err(not_set_up()));
                    continue;
                }
                Some(Event::Stop) => return None,
                _ => continue,
            };
            let reply = match request {
                Request::Disks => Reply::Disks { disks: disks::list(&self.options.disks, &self.options.run) },
                Request::Offers => Reply::Offers { offers: distinct(&offers) },
                Request::Timeline { since } => Reply::Timeline { events: timeline.since(since) },
                Request::Running { .. } | Request::Leave => Reply::Done,
                Request::CreatePair(request) => {
                    let (tls, runtime) = (self.tls.clone(), self.runtime.clone());
                    let create = move |paths: &NodePaths, step: setup::ReportStep<'_>| {
                        runtime.block_on(setup::create_pair(paths, &request, &tls, step))
                    };
                    match self.carry_out(events, create) {
                        Ok(identity) => return self.finish(identity, answer),
                        Err(refusal) => refusal.into(),
                    }
                }
                Request::Join(request) => {
                    let (offers, tls, runtime) = (offers.clone(), self.tls.clone(), self.runtime.clone());
                    let join = move |paths: &NodePaths, step: setup::ReportStep<'_>| {
                        runtime.block_on(setup::join(paths, &request, &offers, &tls, step))
                    };
                    match self.carry_out(events, join) {
                        Ok(identity) => return self.finish(identity, answer),
                        Err(refusal) => refusal.into(),
                    }
                }
                Request::Erase { disk: None, .. } => Reply::refused(
                    RefusalCode::NotSetUp,
                    "This node belongs to no pair: name the disk that shall be erased.",
                ),
                Request::Erase { disk: Some(disk), confirm } => {
                    let erase = move |paths: &NodePaths, _: setup::ReportStep<'_>| {
                        erase::disk(paths, &disk, Confirmation(&confirm))
                    };
                    let reply = self.carry_out(events, erase).into();
                    self.show(Phase::Blank);
                    reply
                }
                _ => not_set_up().into(),
            };
            if let Reply::Refused(Refusal { sentence, .. }) = &reply {
                timeline.note(TimelineKind::Refused, sentence);
            }
            let _ = answer.send(reply);
        }
    }

    /// Shows the phase in the status, with a new revision.
    fn show(&self, phase: Phase) {
        self.status.send_modify(|shown| {
            let revision = shown.revision + 1;
            *shown = Status { revision, ..Status::without_pair(phase, self.watchdog_status.clone()) };
        });
    }

    /// Carries `work` out on a thread of its own, while this thread feeds the watchdog and refuses requests. Before the
    /// work, and again if it fails, the files and pool labels of an unfinished setup are erased.
    ///
    /// If the process is told to end, the work is abandoned: the process must then end without other work, and the next
    /// start erases what the work has left behind.
    ///
    /// # Errors
    /// The refusal of `work` or of the erasure; [`RefusalCode::SetupFailed`] if the thread ended without a result, or if the
    /// process is told to end.
    fn carry_out<T: Send + 'static>(
        &mut self,
        events: &Receiver<Event>,
        work: impl FnOnce(&NodePaths, setup::ReportStep<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, outcome) = std::sync::mpsc::channel();
        let (paths, shown, watchdog_status) = (self.options.paths(), self.status.clone(), self.watchdog_status.clone());
        self.show(Phase::SettingUp { step: "Checking the answers".into() });
        let run = move || {
            let step = |text: &str| {
                shown.send_modify(|old| {
                    let revision = old.revision + 1;
                    let phase = Phase::SettingUp { step: text.into() };
                    *old = Status { revision, ..Status::without_pair(phase, watchdog_status.clone()) };
                });
            };
            let undo = || erase::undo(&paths, &step).map_err(|e| of_error(RefusalCode::State, &e));
            let result = undo().and_then(|()| work(&paths, &step)).inspect_err(|_| {
                // If the erasure fails as well, it is tried again before the next setup.
                let _ = undo();
            });
            let _ = sender.send(result);
        };
        std::thread::Builder::new().name("setup".into()).spawn(run).expect("the system can start a thread");
        loop {
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.feed();
            }
            match outcome.recv_timeout(Duration::from_millis(200)) {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(refusal)) => {
                    self.show(Phase::Blank);
                    return Err(refusal);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.show(Phase::Blank);
                    return Err(Refusal::new(
                        RefusalCode::SetupFailed,
                        "Setup ended unexpectedly: begin it again. If it fails again, check disks and memory.",
                    ));
                }
            }
            for event in events.try_iter() {
                match event {
                    Event::Control(ControlRequest { answer, .. }) => {
                        let text = "Setup is running; wait until it is finished.";
                        let _ = answer.send(Reply::refused(RefusalCode::SettingUp, text));
                    }
                    Event::Stop => self.stopping = true,
                    _ => {}
                }
            }
            if self.stopping {
                let text = "The storage daemon was told to end: begin again when it runs again.";
                return Err(Refusal::new(RefusalCode::SetupFailed, text));
            }
        }
    }

    /// Answers the client that the node belongs to a pair, and returns the result of [`BlankNode::run`].
    fn finish(
        self,
        identity: NodeIdentity,
        answer: oneshot::Sender<Reply>,
    ) -> Option<(NodeIdentity, Option<Watchdog>)> {
        let _ = answer.send(Reply::Done);
        Some((identity, self.watchdog))
    }
}

/// One offer for each pair, by pair id. An offer that is heard on several links names the first link by name.
fn distinct(heard: &[discovery::DiscoveredOffer]) -> Vec<Offer> {
    let mut offers: Vec<Offer> = heard.iter().map(offer).collect();
    offers.sort_by(|a, b| (&a.pair_id, &a.link).cmp(&(&b.pair_id, &b.link)));
    offers.dedup_by(|a, b| a.pair_id == b.pair_id);
    offers
}

fn offer(found: &discovery::DiscoveredOffer) -> Offer {
    Offer {
        pair_id: found.offer.pair.to_string(),
        pair: found.offer.pair_name.clone(),
        node: found.offer.node_name.clone(),
        link: found.interface.clone(),
    }
}

fn not_set_up() -> Refusal {
    Refusal::new(RefusalCode::NotSetUp, "This node is not set up yet: answer the wizard first.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::sync::mpsc::channel;

    #[test]
    fn a_blank_node_that_is_told_to_end_during_a_setup_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let options = Options::parse_from(["dyad-core", "--state", &path("state"), "--run", &path("run")]);
        std::fs::create_dir_all(&options.state).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sender, events) = channel();
        let mut node = BlankNode {
            options,
            tls: tls::TlsIdentity::generate("node").unwrap(),
            endpoints: Vec::new,
            status: watch::channel(Status::without_pair(Phase::Blank, WatchdogStatus::Absent)).0,
            runtime: runtime.handle().clone(),
            event_sender: EventSender(sender.clone()),
            watchdog: None,
            watchdog_status: WatchdogStatus::Absent,
            stopping: false,
        };
        // A setup that does not end by itself, such as a setup that waits for the other node.
        let (_release, wait) = channel::<()>();
        sender.send(Event::Stop).unwrap();
        let refused = node.carry_out(&events, move |_, _| wait.recv().map_err(|_| not_set_up())).unwrap_err();
        assert_eq!(refused.code, RefusalCode::SetupFailed);
        assert!(node.run(&events).is_none(), "no event is left that would end it");
    }
}
