//! `dyad-core`: see the library of this crate.

use anyhow::Context;
use clap::Parser;
use dyad_control::{Phase, Refusal, RefusalCode, Reply, Request, Status, WatchdogStatus};
use dyad_core::blank::Blank;
use dyad_core::event::{ControlRequest, Event, Inbox};
use dyad_core::node::{self, Start};
use dyad_core::options::Options;
use dyad_core::watchdog::Watchdog;
use dyad_core::{control_server, decommission, links, panics};
use dyad_link::tls;
use dyad_provision::identity::Identity;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use tokio::sync::watch;

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DYAD_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    panics::end_the_process();
    let options = Options::parse();
    std::fs::create_dir_all(&options.state).with_context(|| format!("{} cannot be made", options.state.display()))?;
    std::fs::create_dir_all(&options.run).with_context(|| format!("{} cannot be made", options.run.display()))?;
    // Pages already used stay in memory; the index's map, which is larger than memory, must not be forced in.
    let lock =
        rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE | rustix::mm::MlockAllFlags::ONFAULT;
    if let Err(e) = rustix::mm::mlockall(lock) {
        tracing::warn!(error = %e, "the heartbeat's memory is not locked");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let watchdog = Watchdog::open(&options).context("the watchdog")?;
    let facts = watchdog.as_ref().map_or(WatchdogStatus::Absent, |(_, facts)| facts.status());
    let (sender, events) = channel();
    let inbox = Inbox(sender);
    // A node that is set up is never shown as blank, not even for a moment: others would forget the pair.
    let starting = || Phase::SettingUp { step: "Opening the pool".into() };
    let phase = if Identity::is_there(&options.state) { starting() } else { Phase::Blank };
    let (status, watcher) = watch::channel(Status::without_pair(phase, facts.clone()));
    let (socket, way_in) = (options.socket(), inbox.clone());
    runtime.spawn(async move {
        if let Err(e) = control_server::serve(&socket, way_in, watcher).await {
            tracing::error!(error = %e, "the local socket cannot be served");
            std::process::exit(1);
        }
    });
    let stop = inbox.clone();
    runtime.spawn(async move {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("a signal can be waited for");
        term.recv().await;
        stop.send(Event::Stop);
    });

    let (state, vms) = (options.state.clone(), options.vms());
    let identity = Identity::load(&options.state);
    let tls = tls::Identity::load_or_generate(&options.state, "dyad node");
    let (identity, tls) = match (identity, tls) {
        (Ok(identity), Ok(tls)) => (identity, tls),
        (Err(e), _) => {
            return broken(&status, &facts, &events, (&state, vms.as_deref()), watchdog.map(|w| w.0), &e.into());
        }
        (_, Err(e)) => {
            return broken(&status, &facts, &events, (&state, vms.as_deref()), watchdog.map(|w| w.0), &e.into());
        }
    };
    let (identity, mut watchdog) = match identity {
        Some(identity) => (identity, watchdog),
        None => {
            let (device, known) = watchdog.unzip();
            let blank = Blank {
                options: options.clone(),
                tls: tls.clone(),
                endpoints: || links::endpoints(&links::all()),
                status: status.clone(),
                runtime: runtime.handle().clone(),
                inbox: inbox.clone(),
                watchdog: device,
                facts: facts.clone(),
            };
            match blank.run(&events) {
                None => return Ok(()),
                Some((identity, device)) => (identity, device.zip(known)),
            }
        }
    };
    let links = if identity.links.is_empty() { links::all() } else { identity.links.clone() };
    let start = Start {
        endpoints: links::endpoints(&links),
        links,
        options,
        identity,
        tls,
        inbox,
        status: status.clone(),
        watchdog: &mut watchdog,
        runtime: runtime.handle().clone(),
    };
    match node::run(start, &events) {
        Ok(()) => Ok(()),
        Err(e) => broken(&status, &facts, &events, (&state, vms.as_deref()), watchdog.map(|w| w.0), &e),
    }
}

/// Says what is wrong for as long as the process lives. A watchdog that is given here is fed by nobody else; VMs
/// that outlived an earlier core are for it to end.
fn broken(
    status: &watch::Sender<Status>,
    facts: &WatchdogStatus,
    events: &Receiver<Event>,
    (state, vms): (&Path, Option<&Path>),
    mut watchdog: Option<Watchdog>,
    error: &anyhow::Error,
) -> anyhow::Result<()> {
    let sentence = format!("This node cannot work: {error:#}.");
    tracing::error!("{sentence}");
    status.send_modify(|shown| {
        let revision = shown.revision + 1;
        *shown = Status {
            revision,
            ..Status::without_pair(Phase::Broken { sentence: sentence.clone() }, facts.clone())
        };
    });
    loop {
        match events.recv_timeout(std::time::Duration::from_millis(500)) {
            Ok(Event::Stop) => return Ok(()),
            Ok(Event::Control(ControlRequest { request: Request::Erase { disk, confirm }, answer })) => {
                // If it did, the control server tells so and then ends this process.
                let _ = answer.send(decommission::broken(state, vms.map(Into::into), disk.as_deref(), &confirm).into());
            }
            Ok(Event::Control(ControlRequest { answer, .. })) => {
                let _ = answer.send(Reply::refused(RefusalCode::Broken, sentence.clone()));
            }
            Ok(Event::OpenImport { answer, .. }) => {
                let _ = answer.send(Err(Refusal::new(RefusalCode::Broken, sentence.clone())));
            }
            _ => {}
        }
        if let Some(watchdog) = &mut watchdog
            && !dyad_core::cgroup_fence::populated(vms)
        {
            watchdog.feed();
        }
    }
}
