//! Start of a member: opens register and pool, starts the threads, and runs `CoreState`.
//!
//! **Invariant.** The quorum thread feeds the watchdog before the pool is opened, which may take longer than the watchdog's
//! period. Its updates wait in the event queue meanwhile.

use crate::event::{Event, EventSender};
use crate::options::Options;
use crate::pairing::Pairing;
use crate::peer::PeerHandle;
use crate::quorum_handle::{self, QuorumHandle, QuorumInput};
use crate::quorum_thread::QuorumThread;
use crate::register::Register;
use crate::selftest::{self, WatchdogTest};
use crate::state::{CoreHandles, CoreState, Dependencies, StatePaths};
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::watchdog::{Watchdog, WatchdogInfo};
use crate::witness::WitnessHandle;
use crate::{cgroup_fence, clock, documents, peer_watchdog_cache};
use dyad_control::{Status, TimelineKind};
use dyad_link::beacon::{self, Beacon, BeaconError, PathConfig};
use dyad_link::discovery::Endpoint;
use dyad_link::{PairId, PairKey, UDP_PORT, tls};
use dyad_mirror::{Mirror, Tuning};
use dyad_placement::{CgroupCommand, CgroupState};
use dyad_pool::{OpenOptions, Pool};
use dyad_provision::disks::{self, DiskError, PoolDiskPaths};
use dyad_provision::identity::NodeIdentity;
use dyad_provision::register::{RegisterError, RegisterFiles};
use dyad_quorum::{AcceptorRecord, MAX_PATHS, Quorum, Setup, Timing, slots};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;

/// Period of the watchdog while the node boots, in seconds, as init sets it by default.
const BOOT_PERIOD_S: u64 = 30;

/// The arguments of [`run`].
pub struct MemberStart<'a> {
    /// The command line.
    pub options: Options,
    /// Ids, names, keys and peer addresses from the state folder.
    pub identity: NodeIdentity,
    /// Key and certificate of this node.
    pub tls: tls::TlsIdentity,
    /// Sends to the queue that [`CoreState`] reads.
    pub event_sender: EventSender,
    /// Takes each new status; the tasks of the control socket read it.
    pub status: watch::Sender<Status>,
    /// The opened watchdog; `None` = this node has none. [`run`] takes it when the quorum thread begins to feed it.
    pub watchdog: &'a mut Option<(Watchdog, WatchdogInfo)>,
    /// The runtime for the tasks of sockets.
    pub runtime: tokio::runtime::Handle,
    /// Names of the interfaces that are peer links.
    pub links: Vec<String>,
    /// Interfaces on which an open pairing code is announced.
    pub endpoints: Vec<Endpoint>,
}

/// Reasons for which a member cannot run. The status shows them as [`dyad_control::Phase::Broken`].
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No disk carries the label of this node.
    #[error("no pool disk of this node was found; attach its disks and restart it")]
    NoPoolDisk,
    /// The index partition of a pool disk cannot be mounted, or its data partition cannot be opened.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The register is not readable.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The system gives no socket for heartbeats.
    #[error("the heartbeat sockets cannot be opened")]
    Heartbeats { source: BeaconError },
    /// The pool is damaged or of another version.
    #[error(transparent)]
    Pool(#[from] dyad_pool::OpenError),
    /// A folder cannot be made.
    #[error("{} cannot be made", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

/// Opens register, heartbeat sockets and pool, and runs [`CoreState`] until it is told to stop.
///
/// # Errors
/// A disk, the register, the pool or a socket cannot be opened. If the pool fails, the quorum thread runs already and has
/// been told to leave the pair; it goes on feeding the watchdog.
pub fn run(start: MemberStart<'_>, events: &Receiver<Event>) -> Result<(), NodeError> {
    let MemberStart { options, identity, tls, event_sender, status, watchdog, runtime, links, endpoints } = start;
    let _in_runtime = runtime.enter();
    let mut timeline = Timeline::new(Some(identity.me));
    conclude_self_test(&options, watchdog.as_ref().map(|(_, info)| info), &mut timeline);

    let disks = PoolDisks::find(&options, &identity)?;
    tracing::info!("the pool's disks are found");
    let sizes = disks.sizes();
    let id = slots::RegisterId { pair: identity.pair_number(), node: identity.me };
    let (register, record) = RegisterFiles::open([&options.state, &disks.indexes[0]], id)?;
    let config = record.base.clone();

    let (beacon, path_count) = open_beacon(&identity, &links)?;
    let (quorum_thread, inputs) = quorum_handle::queue(beacon.waker());
    let register = Register::start(register, quorum_thread.clone());
    let witness = WitnessHandle::start(quorum_thread.clone(), identity.me);
    let witness_requests = witness.requests();
    let pairing = Pairing::new(options.clone(), tls, endpoints, witness, event_sender.clone(), runtime.clone());
    // The witness must be known before the quorum thread sends its first request.
    pairing.use_witness(&identity);
    pairing.add_peer_to_witness(&identity);
    let cgroup_fence = start_cgroup_fence(&options, &quorum_thread);
    // From here on the watchdog must be fed within its period of 3 s, so the quorum thread starts at once.
    let (watchdog, watchdog_info) = set_watchdog_period(&options, watchdog.take(), &mut timeline);
    // The first event of the quorum machine: VMs may still run that an earlier run of this daemon permitted.
    quorum_thread.tell(dyad_quorum::Event::VmsRunning(cgroup_fence::populated(options.vms_cgroup().as_deref())));
    QuorumThread {
        quorum: new_quorum(&options, &identity, record, path_count, watchdog_info.as_ref()),
        beacon,
        paths: path_count,
        watchdog,
        register,
        witness: witness_requests,
        cgroup_fence: cgroup_fence.clone(),
        event_sender: event_sender.clone(),
    }
    .start(inputs);
    tracing::info!("heartbeats begin");

    let pool = open_pool(&disks, &identity, &mut timeline).inspect_err(|_| {
        // The other node, if it is in sync, has all data of this one: it takes over.
        quorum_thread.tell(dyad_quorum::Event::Faulty);
        quorum_thread.tell(dyad_quorum::Event::Leave);
    })?;
    let mirror = Mirror::new(clock::now(), Tuning::default(), dyad_replica::inventory(&pool));
    let store = StoreHandle::start(pool, sizes, event_sender.clone());
    let mut peer = PeerHandle::start(event_sender.clone());
    pairing.connect(&identity, &mut peer);
    let handles = CoreHandles {
        paths: StatePaths { state: options.state.clone(), run: options.run.clone(), vms_cgroup: options.vms_cgroup() },
        documents: documents::start(event_sender.clone(), options.state.clone()),
        event_sender,
        store,
        peer,
        quorum_thread: quorum_thread.clone(),
        cgroup_fence,
        timeline,
        links,
        runtime,
        pairing,
    };
    let sockets = options.run.join("vhost");
    std::fs::create_dir_all(&sockets).map_err(|source| NodeError::Folder { path: sockets, source })?;
    CoreState::new(Dependencies { identity, mirror, watchdog: watchdog_info, status, handles }, config).run(events);
    quorum_thread.send(QuorumInput::Stop);
    Ok(())
}

/// Judges a watchdog test that the last reset of this node interrupted, and repeats the test if its result is not
/// certain.
fn conclude_self_test(options: &Options, watchdog: Option<&WatchdogInfo>, timeline: &mut Timeline) {
    let Some(outcome) = selftest::conclude(&options.state) else { return };
    timeline.note(TimelineKind::Watchdog, outcome.text);
    // The node has just booted, and the peer has not heard it yet. If no VM runs, another reset interrupts none.
    let idle = !cgroup_fence::populated(options.vms_cgroup().as_deref());
    let (Some(info), Some(repetition)) = (watchdog, outcome.repeat.filter(|_| idle)) else { return };
    let (state, run) = (options.state.clone(), options.run.clone());
    let test = WatchdogTest { state, run, watchdog: info.identity.clone(), repetition };
    // Nothing feeds the watchdog yet.
    let Err(error) = test.run(|| ());
    timeline.note(TimelineKind::Watchdog, error.to_string());
    // Until the quorum thread starts, which sets the period again, the watchdog is not fed.
    let _ = crate::init::watchdog_period(&options.run, BOOT_PERIOD_S);
}

/// The pool disks of this node, with their indexes mounted.
struct PoolDisks {
    disks: Vec<PoolDiskPaths>,
    /// Mount points of their indexes, in the sequence of `disks`.
    indexes: Vec<PathBuf>,
}

impl PoolDisks {
    /// Finds the disks with the label of this node and mounts their indexes.
    fn find(options: &Options, identity: &NodeIdentity) -> Result<Self, NodeError> {
        let disks = disks::find_pool_disks(&options.disks, &options.run, identity.pair_number(), identity.me);
        if disks.is_empty() {
            return Err(NodeError::NoPoolDisk);
        }
        let paths = options.paths();
        let indexes = disks.iter().map(|disk| disk.index.mount(&paths)).collect::<Result<_, _>>()?;
        Ok(Self { disks, indexes })
    }

    /// Name and size in bytes of each disk, for the status.
    fn sizes(&self) -> Vec<(String, u64)> {
        self.disks.iter().map(disk_size).collect()
    }
}

/// The heartbeat sockets, and the number of paths.
fn open_beacon(identity: &NodeIdentity, links: &[String]) -> Result<(Beacon, u8), NodeError> {
    let paths: Vec<PathConfig> =
        links.iter().take(MAX_PATHS).map(|name| PathConfig::Interface { name: name.clone() }).collect();
    let path_count = paths.len() as u8;
    let config = beacon::BeaconConfig {
        pair: PairId(identity.pair_number()),
        node: identity.me,
        key: PairKey(identity.key_bytes()),
        port: UDP_PORT,
    };
    let beacon = Beacon::open(&config, paths).map_err(|source| NodeError::Heartbeats { source })?;
    Ok((beacon, path_count))
}

/// The thread that freezes and kills VMs. It reports to the quorum thread itself: the core's state thread may be busy
/// opening the pool while VMs are frozen.
fn start_cgroup_fence(options: &Options, quorum_thread: &QuorumHandle) -> Sender<CgroupCommand> {
    let quorum_thread = quorum_thread.clone();
    cgroup_fence::start(options.vms_cgroup(), move |state| {
        quorum_thread.tell(match state {
            CgroupState::Frozen => dyad_quorum::Event::VmsFrozen,
            CgroupState::Thawed => dyad_quorum::Event::VmsThawed,
            CgroupState::Killed => dyad_quorum::Event::VmsKilled,
        });
    })
}

/// The quorum machine at start, with the record that the register holds.
fn new_quorum(
    options: &Options,
    identity: &NodeIdentity,
    record: AcceptorRecord,
    path_count: u8,
    watchdog: Option<&WatchdogInfo>,
) -> Quorum {
    let peer_incarnation = record.base.incarnations[identity.me.peer().index()];
    let setup = Setup {
        me: identity.me,
        pair: identity.pair_number(),
        boot: clock::boot_id(),
        paths: path_count.max(1),
        timing: Timing::standard(),
        watchdog_proven: watchdog.is_some_and(|info| info.proven),
        // In force until the peer's first heartbeat.
        peer_watchdog_proven: peer_watchdog_cache::load(&options.state, peer_incarnation),
    };
    Quorum::new(setup, record, clock::now())
}

fn open_pool(disks: &PoolDisks, identity: &NodeIdentity, timeline: &mut Timeline) -> Result<Pool, NodeError> {
    let options = OpenOptions { expected: (identity.pair_number(), identity.me), durable_index: true };
    let (pool, report) = Pool::open(disks::open(&disks.disks, &disks.indexes)?, &options)?;
    timeline
        .note(TimelineKind::PoolOpen, format!("The pool is open; {} journal records were replayed.", report.replayed));
    Ok(pool)
}

/// Sets the watchdog's period for fencing, 3 s. A watchdog that is not proven or cannot have this period is fed, but
/// fencing does not rely on it: `proven` is then `false`.
fn set_watchdog_period(
    options: &Options,
    watchdog: Option<(Watchdog, WatchdogInfo)>,
    timeline: &mut Timeline,
) -> (Option<Watchdog>, Option<WatchdogInfo>) {
    let Some((watchdog, mut info)) = watchdog else { return (None, None) };
    info.proven = selftest::is_proven(&options.state, &info.identity);
    match crate::init::watchdog_period(&options.run, selftest::PERIOD_S) {
        Ok(granted) if granted == selftest::PERIOD_S => info.timeout_s = granted,
        Ok(granted) => {
            info.proven = false;
            timeline.note(
                TimelineKind::Watchdog,
                format!("The watchdog has a period of {granted} s: it is not relied upon."),
            );
        }
        Err(why) => {
            info.proven = false;
            timeline.note(TimelineKind::Watchdog, format!("The watchdog's period cannot be set: {why}."));
        }
    }
    (Some(watchdog), Some(info))
}

/// Path of the disk, and size of its data partition in bytes; 0 if it cannot be opened.
fn disk_size(paths: &PoolDiskPaths) -> (String, u64) {
    let size = std::fs::File::open(&paths.raw).and_then(|mut file| {
        use std::io::Seek;
        file.seek(std::io::SeekFrom::End(0))
    });
    (paths.disk.display().to_string(), size.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use dyad_types::NodeId;

    /// The proof is of a reset within 3.5 s, and the other node waits no longer before it starts this node's VMs.
    #[test]
    fn a_proven_watchdog_counts_only_with_the_period_of_its_proof() {
        for (answer, proven) in [("ok 3", true), ("ok 4", false), ("ok 60", false), ("busy", false)] {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().display().to_string();
            let device = dir.path().join("watchdog");
            std::fs::write(&device, "").unwrap();
            let device = device.display().to_string();
            let options =
                Options::parse_from(["dyad-core", "--state", &folder, "--run", &folder, "--watchdog", &device]);
            let (watchdog, mut info) = Watchdog::open(&options).unwrap().expect("the command line names a device");
            info.identity = "i6300".into();
            selftest::store_proof(&options.state, "i6300");
            let init = crate::init::testing::answer_once(&options.run, answer);
            let (_, info) = set_watchdog_period(&options, Some((watchdog, info)), &mut Timeline::new(Some(NodeId::A)));
            assert_eq!(info.map(|info| info.proven), Some(proven), "{answer}");
            assert_eq!(init.join().unwrap(), "watchdog 3");
        }
    }
}
