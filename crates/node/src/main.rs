//! `dyad-node`: parses the options, opens the sockets, and runs until a signal or until the control plane ends.
//!
//! SIGTERM shuts the node down: first its VMs, then the core hands over to the other node. SIGINT and SIGHUP end only this
//! program; VMs keep running, and the next process adopts them.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use dyad_node::{NodeHandle, Options, bless, certificate, http, network, ports, seed, server, supervise, vms};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// Interval at which the node reads its addresses from the network, for the document: DHCP may change them at any time.
const ADDRESS_SCAN_INTERVAL: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == supervise::ENTER_CGROUP) {
        return Err(dyad_supervisor::exec_in_cgroup(arguments).into());
    }
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("DYAD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    // Two threads are enough for pages and API, and each further one takes memory from the VMs.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    for dir in [&options.state, &options.run] {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    }
    let mut sigterm = signal(SignalKind::terminate())?;
    let mut sighup = signal(SignalKind::hangup())?;
    let mut sigint = signal(SignalKind::interrupt())?;

    let network: Arc<dyn network::NetworkSetup> = if options.no_network {
        Arc::new(network::NoNetwork)
    } else {
        Arc::new(ports::ManagedNetwork::open(&options.state)?)
    };
    let vms = if options.no_vms { vms::NoVms::start() } else { supervise::QemuSupervisor::start(&options)? };
    let search_volumes = !options.no_network;
    let (node, mut ended) = NodeHandle::start(options.clone(), network, vms);

    // DHCP takes seconds, so the rest of the start does not wait for it.
    tokio::spawn(start_network_and_report_addresses(node.clone()));
    let tls = certificate::server_config(&options.state)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("no connection can be accepted on {}", options.listen))?;
    let local = server::local_listener(&options.local_socket())?;
    tracing::info!("listening on https://{}", listener.local_addr()?);
    let site = http::site(node.clone(), dyad_web::router(node.clone()));
    tokio::spawn(server::serve_tls(listener, tls, site.clone()));
    tokio::spawn(server::serve_local(local, site));

    let seeded = node.clone();
    tokio::spawn(async move {
        if let Err(problem) = seed::carry_out(seeded, search_volumes).await {
            tracing::error!("the seed file was not carried out: {problem}");
        }
    });
    tokio::spawn(bless::when_good(node.follow(), || match dyad_update::NodeSlots::of_this_machine().bless() {
        Ok(blessing) => tracing::info!("this boot is good: {blessing:?}"),
        Err(error) => tracing::warn!("this boot was not blessed: {error}"),
    }));

    tokio::select! {
        _ = sigterm.recv() => {}
        _ = sighup.recv() => return Ok(()),
        _ = sigint.recv() => return Ok(()),
        result = &mut ended => return result.context("the control plane failed"),
    }
    tracing::info!("the node shuts down: first its VMs, then the core hands over");
    node.shut_down(ended).await;
    Ok(())
}

/// Starts the network, then passes this node's addresses to the control plane at the interval.
async fn start_network_and_report_addresses(node: Arc<NodeHandle>) {
    if let Err(error) = node.network().start().await {
        tracing::error!("{error}");
    }
    let mut ticks = tokio::time::interval(ADDRESS_SCAN_INTERVAL);
    loop {
        ticks.tick().await;
        node.refresh_addresses().await;
    }
}
