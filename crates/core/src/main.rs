//! The program `dyad-core`: starts the daemon that the library of this crate describes.

use anyhow::Context;
use clap::Parser;
use dyad_control::{Phase, Refusal, RefusalCode, Reply, Request, Status, WatchdogStatus, chain};
use dyad_core::blank::BlankNode;
use dyad_core::event::{ControlRequest, Event, EventSender};
use dyad_core::node::{self, MemberStart};
use dyad_core::options::Options;
use dyad_core::watchdog::{Watchdog, WatchdogInfo};
use dyad_core::{cgroup_fence, control_server, decommission, links, panics};
use dyad_link::tls;
use dyad_provision::identity::NodeIdentity;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Longest interval between two feedings of the watchdog on a node that cannot work.
const WATCHDOG_FEED_INTERVAL: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DYAD_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    // With the next entries it tells how long the start took: the peer waits for it for little more than a second.
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "dyad-core starts");
    panics::end_process_on_panic();
    let options = Options::parse();
    for folder in [&options.state, &options.run] {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    lock_memory();
    Daemon::start(options)?.run()
}

/// Keeps the pages of this process in memory, because the heartbeat must not wait for a disk. Pages are locked at their
/// first use, because the memory map of the index is larger than memory.
fn lock_memory() {
    let lock =
        rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE | rustix::mm::MlockAllFlags::ONFAULT;
    if let Err(e) = rustix::mm::mlockall(lock) {
        tracing::warn!(error = %e, "the heartbeat's memory is not locked");
    }
}

/// State of the process that stays the same when a blank node becomes a member.
struct Daemon {
    options: Options,
    runtime: Runtime,
    event_sender: EventSender,
    events: Receiver<Event>,
    status: watch::Sender<Status>,
    /// `None` = this node has none, or the thread that feeds it has taken it.
    watchdog: Option<(Watchdog, WatchdogInfo)>,
    /// Kind and proof of the watchdog as they were at start.
    watchdog_status: WatchdogStatus,
}

impl Daemon {
    /// Opens the watchdog and the local socket.
    fn start(options: Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let watchdog = Watchdog::open(&options).context("the watchdog")?;
        let watchdog_status = watchdog.as_ref().map_or(WatchdogStatus::Absent, |(_, info)| info.status());
        let (sender, events) = channel();
        let event_sender = EventSender(sender);
        // A node that is set up is never shown as blank, not even for a moment: `dyad-node` would forget the pair.
        let starting = || Phase::SettingUp { step: "Opening the pool".into() };
        let phase = if NodeIdentity::exists(&options.state) { starting() } else { Phase::Blank };
        let (status, watcher) = watch::channel(Status::without_pair(phase, watchdog_status.clone()));
        let (socket, requests) = (options.socket(), event_sender.clone());
        runtime.spawn(async move {
            if let Err(e) = control_server::serve(&socket, requests, watcher).await {
                tracing::error!(error = chain(&e), "the local socket cannot be served");
                std::process::exit(1);
            }
        });
        let stop = event_sender.clone();
        runtime.spawn(async move {
            signal(SignalKind::terminate()).expect("a signal can be waited for").recv().await;
            stop.send(Event::Stop);
        });
        Ok(Self { options, runtime, event_sender, events, status, watchdog, watchdog_status })
    }

    /// Serves until the process is told to stop. An error is shown as [`Phase::Broken`] until then.
    fn run(mut self) -> anyhow::Result<()> {
        match self.serve() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.show_broken(&error);
                Ok(())
            }
        }
    }

    /// Runs as a member; a blank node becomes a member first.
    fn serve(&mut self) -> anyhow::Result<()> {
        let identity = NodeIdentity::load(&self.options.state);
        let tls = tls::TlsIdentity::load_or_generate(&self.options.state, "dyad node");
        let (identity, tls) = (identity?, tls?);
        match identity.or_else(|| self.become_member(&tls)) {
            Some(identity) => self.run_member(identity, tls),
            None => Ok(()),
        }
    }

    /// Runs as a blank node until this node belongs to a pair; `None` = the process ends before.
    fn become_member(&mut self, tls: &tls::TlsIdentity) -> Option<NodeIdentity> {
        let (device, info) = self.watchdog.take().unzip();
        let blank = BlankNode {
            options: self.options.clone(),
            tls: tls.clone(),
            endpoints: || links::discovery_endpoints(&links::all()),
            status: self.status.clone(),
            runtime: self.runtime.handle().clone(),
            event_sender: self.event_sender.clone(),
            watchdog: device,
            watchdog_status: self.watchdog_status.clone(),
            stopping: false,
        };
        let (identity, device) = blank.run(&self.events)?;
        self.watchdog = device.zip(info);
        Some(identity)
    }

    fn run_member(&mut self, identity: NodeIdentity, tls: tls::TlsIdentity) -> anyhow::Result<()> {
        let links = if identity.links.is_empty() { links::all() } else { identity.links.clone() };
        let start = MemberStart {
            endpoints: links::discovery_endpoints(&links),
            links,
            options: self.options.clone(),
            identity,
            tls,
            event_sender: self.event_sender.clone(),
            status: self.status.clone(),
            watchdog: &mut self.watchdog,
            runtime: self.runtime.handle().clone(),
        };
        Ok(node::run(start, &self.events)?)
    }

    /// Shows the error until the process ends, and carries out no request but an erasure of the node. If the watchdog is
    /// still here, no other thread feeds it: it is fed here while no VM runs. VMs of an earlier run of this daemon are
    /// ended by the watchdog's reset.
    fn show_broken(mut self, error: &anyhow::Error) {
        let sentence = format!("This node cannot work: {error:#}.");
        tracing::error!("{sentence}");
        self.status.send_modify(|shown| {
            let revision = shown.revision + 1;
            let phase = Phase::Broken { sentence: sentence.clone() };
            *shown = Status { revision, ..Status::without_pair(phase, self.watchdog_status.clone()) };
        });
        let (state, vms) = (self.options.state.clone(), self.options.vms_cgroup());
        loop {
            match self.events.recv_timeout(WATCHDOG_FEED_INTERVAL) {
                Ok(Event::Stop) => return,
                Ok(Event::Control(ControlRequest { request: Request::Erase { disk, confirm }, answer })) => {
                    // After a success the control server writes the reply and then sends `Event::Stop`.
                    let erased = decommission::begin_on_broken_node(&state, vms.clone(), disk.as_deref(), &confirm);
                    let _ = answer.send(erased.into());
                }
                Ok(Event::Control(ControlRequest { answer, .. })) => {
                    let _ = answer.send(Reply::refused(RefusalCode::Broken, sentence.clone()));
                }
                Ok(Event::OpenImport { answer, .. }) => {
                    let _ = answer.send(Err(Refusal::new(RefusalCode::Broken, sentence.clone())));
                }
                _ => {}
            }
            if let Some((watchdog, _)) = &mut self.watchdog
                && !cgroup_fence::populated(vms.as_deref())
            {
                watchdog.feed();
            }
        }
    }
}
