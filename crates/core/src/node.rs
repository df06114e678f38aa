//! A node that belongs to a pair: opens what is on its disks and starts the threads around the owner.

use crate::event::{Event, Inbox};
use crate::options::Options;
use crate::pairing::Pairing;
use crate::peer::PeerHandle;
use crate::quorum_handle::{self, QuorumInput};
use crate::quorum_thread::QuorumThread;
use crate::register::Register;
use crate::state::{CoreState, Dependencies, Outputs, StatePaths};
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::watchdog::{Watchdog, WatchdogInfo};
use crate::witness::WitnessHandle;
use crate::{cgroup_fence, clock, documents, peer_watchdog_cache, selftest};
use anyhow::{Context, bail};
use dyad_control::Status;
use dyad_link::beacon::{self, Beacon, PathConfig};
use dyad_link::discovery::Endpoint;
use dyad_link::{PairId, PairKey, UDP_PORT, tls};
use dyad_mirror::{Mirror, Tuning};
use dyad_pool::{OpenOptions, Pool};
use dyad_provision::disks::{self, PoolDiskPaths};
use dyad_provision::identity::Identity;
use dyad_provision::register::RegisterFiles;
use dyad_quorum::{MAX_PATHS, Quorum, Setup, Timing, slots};
use std::sync::mpsc::Receiver;
use tokio::sync::watch;

/// What init gives a node to start, in seconds, before its watchdog must be fed.
const BOOT_PERIOD_S: u64 = 30;

/// Everything a node starts with.
pub struct Start<'a> {
    /// The command line.
    pub options: Options,
    /// Who this node is.
    pub identity: Identity,
    /// Its key.
    pub tls: tls::Identity,
    /// The way in.
    pub inbox: Inbox,
    /// Where the status is shown.
    pub status: watch::Sender<Status>,
    /// The watchdog, if there is one. Still there afterwards if nothing else feeds it.
    pub watchdog: &'a mut Option<(Watchdog, WatchdogInfo)>,
    /// The runtime for sockets.
    pub runtime: tokio::runtime::Handle,
    /// Names of the interfaces that are peer links.
    pub links: Vec<String>,
    /// Where pairing is announced.
    pub endpoints: Vec<Endpoint>,
}

/// Opens everything and runs the owner until it is told to stop.
pub fn run(start: Start<'_>, events: &Receiver<Event>) -> anyhow::Result<()> {
    let Start { options, identity, tls, inbox, status, watchdog, runtime, links, endpoints } = start;
    let _in_runtime = runtime.enter();
    let mut timeline = Timeline::new(Some(identity.me));
    if let Some(verdict) = selftest::conclude(&options.state) {
        timeline.note("watchdog", verdict.text);
        // The machine has just booted: nothing runs here, and nobody hears of this node yet.
        if let (true, Some((_, facts))) =
            (verdict.again && !cgroup_fence::populated(options.vms().as_deref()), &*watchdog)
            && let Err(sentence) = selftest::run(&options.state, &options.run, &facts.identity, true)
        {
            timeline.note("watchdog", sentence);
            // Nobody feeds it before the quorum_thread starts, which sets the period anew.
            let _ = crate::init::watchdog_period(&options.run, BOOT_PERIOD_S);
        }
    }

    let parts = disks::find_pool_disks(&options.disks, &options.run, identity.pair_number(), identity.me);
    if parts.is_empty() {
        bail!("no pool disk of this node was found; attach its disks and restart it");
    }
    let indexes = parts.iter().map(|p| p.index.mount(&options.run)).collect::<Result<Vec<_>, _>>()?;
    let sizes = parts.iter().map(disk_size).collect();
    let owner = slots::RegisterId { pair: identity.pair_number(), node: identity.me };
    let (register, record) = RegisterFiles::open([&options.state, &indexes[0]], owner)?;
    let config = record.base.clone();

    let paths: Vec<PathConfig> =
        links.iter().take(MAX_PATHS).map(|name| PathConfig::Interface { name: name.clone() }).collect();
    let path_count = paths.len() as u8;
    let beacon_config = beacon::Config {
        pair: PairId(identity.pair_number()),
        node: identity.me,
        key: PairKey(identity.key_bytes()),
        port: UDP_PORT,
    };
    let beacon = Beacon::open(&beacon_config, paths).context("the heartbeat sockets cannot be opened")?;
    let (handle, inputs) = quorum_handle::queue(beacon.waker());
    let register = Register::start(register, handle.clone());
    let witness = WitnessHandle::start(handle.clone());

    let witness_requests = witness.requests();
    let pairing = Pairing::new(options.clone(), tls, endpoints, witness, inbox.clone(), runtime.clone());
    // Before the quorum_thread asks for the first time.
    pairing.use_witness(&identity);
    pairing.add_peer_to_witness(&identity);
    // Straight to the quorum_thread: the owner may be busy opening the pool while VMs stand still.
    let reporter = handle.clone();
    let cgroup_fence = cgroup_fence::start(options.vms(), move |done| {
        reporter.tell(match done {
            cgroup_fence::CgroupState::Frozen => dyad_quorum::Event::VmsFrozen,
            cgroup_fence::CgroupState::Thawed => dyad_quorum::Event::VmsThawed,
            cgroup_fence::CgroupState::Killed => dyad_quorum::Event::VmsKilled,
        });
    });
    // From here on the watchdog is hungry every few seconds, so the quorum_thread starts at once. Opening the pool may take
    // longer than that; the owner's queue keeps what the quorum_thread has to say until then.
    let (watchdog, facts) = prove(&options, watchdog.take(), &mut timeline);
    let setup = Setup {
        me: identity.me,
        pair: identity.pair_number(),
        boot: clock::boot_id(),
        paths: path_count.max(1),
        timing: Timing::standard(),
        watchdog: facts.as_ref().is_some_and(|facts| facts.proven),
        // Until the peer says otherwise in its heartbeats.
        peer_watchdog: peer_watchdog_cache::load(&options.state, config.incarnations[identity.me.peer().index()]),
    };
    // The first thing the machine hears: VMs may have outlived an earlier run of this daemon.
    handle.tell(dyad_quorum::Event::VmsRunning(cgroup_fence::populated(options.vms().as_deref())));
    let quorum = Quorum::new(setup, record, clock::now());
    QuorumThread {
        quorum,
        beacon,
        paths: path_count,
        watchdog,
        register,
        witness: witness_requests,
        cgroup_fence,
        owner: inbox.clone(),
    }
    .start(inputs);

    let open = OpenOptions { expected: (identity.pair_number(), identity.me), durable_index: true };
    let opened =
        disks::open(&parts, &indexes).map_err(anyhow::Error::from).and_then(|disks| Ok(Pool::open(disks, &open)?));
    let (pool, report) = opened.inspect_err(|_| {
        // The other node has everything this one has: it goes on alone.
        handle.tell(dyad_quorum::Event::Faulty);
        handle.tell(dyad_quorum::Event::Leave);
    })?;
    timeline.note("pool-open", format!("The pool is open; {} journal records were replayed.", report.replayed));
    let mirror = Mirror::new(clock::now(), Tuning::default(), dyad_replica::inventory(&pool));
    let store = StoreHandle::start(pool, sizes, inbox.clone());
    let mut peer = PeerHandle::start(inbox.clone());
    pairing.connect(&identity, &mut peer);
    let outputs = Outputs {
        paths: StatePaths { state: options.state.clone(), run: options.run.clone(), vms: options.vms() },
        documents: documents::start(inbox.clone(), options.state.clone()),
        inbox,
        store,
        peer,
        quorum_thread: handle.clone(),
        timeline,
        links,
        runtime,
        pairing,
    };
    let dependencies = Dependencies { identity, mirror, watchdog: facts, status, outputs };
    std::fs::create_dir_all(options.run.join("vhost"))?;
    CoreState::new(dependencies, config).run(events);
    handle.send(QuorumInput::Stop);
    Ok(())
}

/// A watchdog that was proven, with its period set; one that is not proven is fed all the same but not relied upon.
fn prove(
    options: &Options,
    watchdog: Option<(Watchdog, WatchdogInfo)>,
    timeline: &mut Timeline,
) -> (Option<Watchdog>, Option<WatchdogInfo>) {
    let Some((watchdog, mut facts)) = watchdog else { return (None, None) };
    facts.proven = selftest::is_proven(&options.state, &facts.identity);
    match crate::init::watchdog_period(&options.run, selftest::PERIOD_S) {
        Ok(granted) if granted == selftest::PERIOD_S => facts.timeout_s = granted,
        Ok(granted) => {
            facts.proven = false;
            timeline.note("watchdog", format!("The watchdog has a period of {granted} s: it is not relied upon."));
        }
        Err(why) => {
            facts.proven = false;
            timeline.note("watchdog", format!("The watchdog's period cannot be set: {why}."));
        }
    }
    (Some(watchdog), Some(facts))
}

fn disk_size(parts: &PoolDiskPaths) -> (String, u64) {
    let size = std::fs::File::open(&parts.raw).and_then(|mut file| {
        use std::io::Seek;
        file.seek(std::io::SeekFrom::End(0))
    });
    (parts.disk.display().to_string(), size.unwrap_or(0))
}
