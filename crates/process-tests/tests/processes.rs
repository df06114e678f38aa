//! Tests of real `dyad-core` and `dyad-witness` processes: killed daemons, a failed disk, pulled cables, erasing,
//! joining, imports.

use dyad_types::NodeId;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use dyad_control::{
    AlarmCode, ClientError, CreatePair, DiskContent, Enrol, Join, Phase, RefusalCode, Reply, Request, TimelineEvent,
    TimelineKind,
};
use dyad_counter::{BLOCK, BootNumber, SLOTS, STRIDE, Slot, Survey, decode, encode};
use dyad_desired::{Change, Firmware, Intent, VmConfig};
use dyad_process_tests::cgroup::Cgroup;
use dyad_process_tests::core_daemons::CoreDaemons;
use dyad_process_tests::disk_driver::DiskDriver;
use dyad_process_tests::namespaces::CABLES;
use dyad_process_tests::pool_file::{damage_copies, find_copies};
use dyad_rig::child::{Program, RunningProgram};
use dyad_rig::wait;

/// Held by each test while it runs: two pairs at once would load the machine so that deadlines are missed.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::new(());

fn core_program() -> PathBuf {
    let artifacts = dyad_rig::artifacts::Artifacts::beside_this_program().unwrap();
    let program = artifacts.programs().join("dyad-core");
    assert!(program.exists(), "{} is missing; run `cargo build --release --workspace` first", program.display());
    program
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dyad-process-tests-{name}-{}", std::process::id()))
}

/// The ring of the counting guest (`dyad-counter`), at the beginning of a volume, written by the test itself.
struct CounterRing {
    driver: DiskDriver,
    counter: u64,
}

impl CounterRing {
    fn offset(counter: u64) -> u64 {
        counter % SLOTS * STRIDE
    }

    /// Writes the next `more` counters, each flushed before the next one.
    fn write_counters(&mut self, more: u64) {
        for _ in 0..more {
            let next = self.counter + 1;
            self.driver.write(Self::offset(next), &encode(next, BootNumber(1))).unwrap();
            self.driver.flush().unwrap();
            self.counter = next;
        }
    }

    /// Asserts that the ring holds exactly the counters that were written and flushed.
    fn check(&mut self) {
        assert_eq!(self.newest(), self.counter);
    }

    /// The newest counter on the volume. Asserts that no slot before it is missing, old or torn.
    fn newest(&mut self) -> u64 {
        let mut block = [0; BLOCK];
        let slots: Vec<Slot> = (0..SLOTS)
            .map(|slot| {
                self.driver.read(slot * STRIDE, &mut block).unwrap();
                decode(&block)
            })
            .collect();
        let found = Survey::new(&slots);
        assert_eq!(found.faults().collect::<Vec<_>>(), []);
        found.newest
    }
}

/// Creates a volume of 8 MiB with an empty ring at side 0.
fn ring(daemons: &CoreDaemons) -> CounterRing {
    let socket = daemons.create_volume_with_vm("ring", 8).unwrap();
    CounterRing { driver: DiskDriver::connect(&socket).unwrap(), counter: 0 }
}

#[test]
fn killed_daemons_lose_nothing_that_was_acknowledged() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("kill"));
    let mut daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let mut ring = ring(&daemons);
    ring.write_counters(100);

    // The daemon of the writing node is killed in the middle of a write; its successor finds the write in the in-flight
    // record.
    let next = ring.counter + 1;
    ring.driver.begin_write(CounterRing::offset(next), &encode(next, BootNumber(1))).unwrap();
    daemons.kill(0);
    daemons.start(&program, 0).unwrap();
    ring.driver.reconnect().unwrap();
    ring.driver.finish().unwrap();
    ring.counter = next;
    ring.write_counters(50);
    ring.check();

    // The peer's daemon is killed and started again.
    daemons.kill(1);
    daemons.start(&program, 1).unwrap();
    ring.write_counters(50);
    ring.check();
    daemons.wait_in_sync().unwrap();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// The guest gets no error: its write stays unanswered. The other node goes on alone with every acknowledged write.
#[test]
fn a_node_whose_pool_disk_fails_hands_over() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("disk"));
    let daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let mut ring = ring(&daemons);
    ring.write_counters(50);
    daemons.fail_disk(0).unwrap();
    let next = ring.counter + 1;
    ring.driver.begin_write(CounterRing::offset(next), &encode(next, BootNumber(1))).unwrap();
    wait_alone(&daemons, 1);
    let mut there = CounterRing {
        driver: DiskDriver::connect(&daemons.wait_for_device(1, "ring").unwrap()).unwrap(),
        counter: ring.counter,
    };
    assert!(!ring.driver.is_answered().unwrap(), "the guest was told of a failure that is not its own");
    // The write without an answer may or may not have reached the other node.
    let newest = there.newest();
    assert!((ring.counter..=next).contains(&newest), "{newest}");
    there.counter = newest;
    there.write_counters(20);
    there.check();
    let disk_failed = |status: &dyad_control::Status| status.pool.as_ref().is_some_and(|pool| !pool.disks[0].healthy);
    let failed = daemons.wait("the failed disk to be named", 0, Duration::from_secs(30), disk_failed).unwrap();
    let error = failed.pool.unwrap().disks[0].error.clone().unwrap();
    assert!(error.contains("replace it"), "{error}");
    let told = daemons.timeline(0).unwrap().iter().filter(|event| event.kind == TimelineKind::Faulty).count();
    assert_eq!(told, 1, "people are told once");
    let quorum = failed.quorum.unwrap();
    assert!(!quorum.may_run && matches!(quorum.state, dyad_control::NodeState::Faulty { .. }), "{quorum:?}");
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A node that is alone has no other node that takes over. Its guest waits without an error, and a restarted daemon finds every write that
/// was acknowledged.
#[test]
fn a_lone_node_whose_pool_disk_failed_once_goes_on_after_a_restart() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("once"));
    let mut daemons = CoreDaemons::blank(&program, &folder).unwrap();
    daemons.create_pair(0).unwrap();
    daemons.wait("the daemon to work", 0, Duration::from_secs(60), |status| status.quorum.is_some()).unwrap();
    let mut ring = ring(&daemons);
    ring.write_counters(50);
    daemons.fail_disk(0).unwrap();
    let next = ring.counter + 1;
    ring.driver.begin_write(CounterRing::offset(next), &encode(next, BootNumber(1))).unwrap();
    wait::until("the daemon to end by itself", Duration::from_secs(120), || {
        let ended = daemons.process_mut(0)?.ended();
        Ok(if ended { wait::Poll::Ready(()) } else { wait::Poll::NotYet("it runs".into()) })
    })
    .unwrap();
    assert!(!ring.driver.is_answered().unwrap(), "the guest was told of a failure that may pass");
    daemons.kill(0);
    daemons.start(&program, 0).unwrap();
    ring.driver.reconnect().unwrap();
    // The new daemon finds the request in the memory that it shares with the guest.
    ring.driver.finish().unwrap();
    ring.counter = next;
    ring.check();
    ring.write_counters(50);
    ring.check();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A daemon that dies after it froze the VMs cannot thaw them, so the next daemon must.
#[test]
fn a_restarted_daemon_thaws_vms_that_the_dead_one_froze() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("thaw"));
    let vms = Cgroup::new("thaw").unwrap();
    let mut daemons = CoreDaemons::blank(&program, &folder).unwrap();
    daemons.create_pair(0).unwrap();
    daemons.kill(0);
    vms.freeze().unwrap();
    daemons.set_vm_cgroup(0, &vms.path());
    daemons.start(&program, 0).unwrap();
    vms.wait("frozen 0").unwrap();
    vms.wait("populated 1").unwrap();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn one_pulled_cable_does_not_change_the_in_sync_set() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("cable"));
    let daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let mut ring = ring(&daemons);
    ring.write_counters(20);
    // If a daemon got no processor for almost D (0.5 s), its peer may have called it silent, and the result says
    // nothing about cables. The daemon reports this (`late`), and the cables are pulled again, at most four times.
    let mut stalls = 0;
    while let Err(told) = pull_cables(&daemons, &mut ring) {
        stalls += 1;
        assert!(told.iter().any(stalled) && stalls < 5, "the in-sync set changed: {told:#?}");
        daemons.wait_in_sync().unwrap();
    }
    ring.check();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether the event says that the daemon got no processor for 400 ms or longer, almost D.
fn stalled(event: &TimelineEvent) -> bool {
    let waited = event.text.split(' ').find_map(|word| word.parse::<u64>().ok());
    event.kind == TimelineKind::Late && waited.is_some_and(|ms| ms >= 400)
}

/// Pulls one cable after the other. If that changed the in-sync set, the error holds both timelines.
fn pull_cables(daemons: &CoreDaemons, ring: &mut CounterRing) -> Result<(), Vec<TimelineEvent>> {
    // Just after the pairing heartbeats may have passed in both directions on one cable only. If that cable were
    // pulled, no cable would be left.
    let up = |status: &dyad_control::Status| status.links.iter().all(|link| link.up);
    for number in [0, 1] {
        daemons.wait("both cables to be seen", number, Duration::from_secs(60), up).unwrap();
    }
    let before = daemons.status(0).unwrap().quorum.unwrap();
    let known = [0, 1].map(|number| daemons.timeline(number).unwrap().len());
    for cable in CABLES {
        daemons.namespaces.set_cable(cable, false).unwrap();
        let down = |status: &dyad_control::Status| status.links.iter().any(|link| !link.up);
        daemons.wait("the pulled cable to be seen", 0, Duration::from_secs(30), down).unwrap();
        ring.write_counters(20);
        daemons.namespaces.set_cable(cable, true).unwrap();
        for number in [0, 1] {
            daemons.wait("the plugged cable to be seen", number, Duration::from_secs(60), up).unwrap();
        }
    }
    let after = daemons.status(0).unwrap().quorum.unwrap();
    if (before.epoch, &before.members) == (after.epoch, &after.members) {
        return Ok(());
    }
    Err([0, 1].into_iter().flat_map(|number| daemons.timeline(number).unwrap().split_off(known[number])).collect())
}

#[test]
fn an_erased_node_joins_again_and_the_last_one_needs_both_names() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("erase"));
    let mut daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let solo = |status: &dyad_control::Status| status.quorum.as_ref().is_some_and(|quorum| quorum.members.len() == 1);
    // Each node in turn: the survivor admits the erased node under its former name, with a new store.
    for number in [1, 0] {
        for wrong in ["lab", CoreDaemons::name(1 - number), ""] {
            let refused = daemons.erase(&program, number, wrong).unwrap_err().to_string();
            assert!(refused.contains(&format!("type exactly \"{}\"", CoreDaemons::name(number))), "{refused}");
        }
        daemons.erase(&program, number, CoreDaemons::name(number)).unwrap();
        assert_eq!(daemons.disk_content(number).unwrap(), DiskContent::Blank);
        let survivor = daemons.wait("the survivor to be alone", 1 - number, Duration::from_secs(30), solo).unwrap();
        assert!(survivor.quorum.unwrap().may_run);
        daemons.join(number).unwrap();
        daemons.wait_in_sync().unwrap();
    }
    daemons.erase(&program, 1, "right").unwrap();
    let refused = daemons.erase(&program, 0, "left").unwrap_err().to_string();
    assert!(refused.contains("type exactly \"lab/left\""), "{refused}");
    daemons.erase(&program, 0, "lab/left").unwrap();
    // Nothing is left of the pair: a new pair is created with the roles exchanged.
    daemons.create_pair(1).unwrap();
    daemons.join(0).unwrap();
    daemons.wait_in_sync().unwrap();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_join_that_is_cut_short_is_undone_and_begins_again() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("join"));
    let mut daemons = CoreDaemons::blank(&program, &folder).unwrap();
    daemons.create_pair(0).unwrap();

    // The second node is killed as soon as it has the pair's secrets.
    let (join, socket) = (daemons.prepare_join(1).unwrap(), daemons.socket(1));
    let joining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(dyad_control::Client::new(socket).ask(&Request::Join(join))).map(|_| ())
    });
    let unfinished = daemons.state(1).join("unfinished.json");
    let began = std::time::Instant::now();
    while !unfinished.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "the join does not begin");
        std::thread::yield_now();
    }
    daemons.kill(1);
    joining.join().unwrap().unwrap_err();
    daemons.start(&program, 1).unwrap();
    daemons.wait("the joining node to be blank", 1, Duration::from_secs(30), blank).unwrap();
    assert!(!unfinished.exists());
    assert!(!matches!(daemons.disk_content(1).unwrap(), DiskContent::Pool { .. }));

    // The first node cannot save the identity of the second node (a folder is in the way), so the join fails.
    std::fs::rename(daemons.state(0).join("identity.json"), daemons.state(0).join("held.json")).unwrap();
    std::fs::create_dir(daemons.state(0).join("identity.json")).unwrap();
    let refused = daemons.join(1).unwrap_err().to_string();
    assert!(refused.contains("could not write this one down"), "{refused}");
    std::fs::remove_dir(daemons.state(0).join("identity.json")).unwrap();
    std::fs::rename(daemons.state(0).join("held.json"), daemons.state(0).join("identity.json")).unwrap();
    daemons.wait("the joining node to be blank", 1, Duration::from_secs(30), blank).unwrap();
    assert_eq!(daemons.disk_content(1).unwrap(), DiskContent::Blank);

    daemons.join(1).unwrap();
    daemons.wait_in_sync().unwrap();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Starts a witness in the namespace of side 0, at 10.77.0.1, and opens a one-time code.
fn witness(daemons: &CoreDaemons, folder: &Path) -> (RunningProgram, String) {
    let program = core_program().with_file_name("dyad-witness");
    let store = folder.join("witness");
    let mut run = Program::new("ip");
    run.args(["netns", "exec", daemons.namespaces.name(0)]).arg(&program).args([
        "run",
        "--listen",
        "10.77.0.1:7403",
        "--dir",
    ]);
    let running = run.arg(&store).start(&folder.join("witness.log")).unwrap();
    let code = wait::until_ok("the witness to print a code", Duration::from_secs(30), || {
        let output = Command::new(&program).args(["code", "--dir"]).arg(&store).output()?;
        let printed = String::from_utf8(output.stdout)?;
        Ok(printed.lines().next().context("It is not there yet.")?.to_owned())
    });
    (running, code.unwrap())
}

#[test]
fn a_witness_named_at_setup_is_enrolled_before_a_disk_is_touched() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("witness"));
    let daemons = CoreDaemons::blank(&program, &folder).unwrap();
    let (_witness, code) = witness(&daemons, &folder);
    let untouched = daemons.disk_usage(0).unwrap();
    let create_pair_with_code = |code: &str| {
        let witness = Some(Enrol { address: "10.77.0.1".into(), code: code.into() });
        daemons.ask(0, &Request::CreatePair(CreatePair { witness, ..daemons.create_pair_request(0) })).map(|_| ())
    };
    let (start, end) = code.split_at(code.len() - 1);
    let refused =
        create_pair_with_code(&format!("{start}{}", if end == "7" { '8' } else { '7' })).unwrap_err().to_string();
    assert_eq!(refused, "The witness code is wrong: compare it with the one on the witness and type it again.");
    daemons.wait("the node to be blank", 0, Duration::from_secs(30), blank).unwrap();
    assert_eq!(daemons.disk_usage(0).unwrap(), untouched, "something was written to the disk");

    create_pair_with_code(&code).unwrap();
    daemons.wait("the first daemon to work", 0, Duration::from_secs(60), |status| status.quorum.is_some()).unwrap();
    daemons.join(1).unwrap();
    wait_for_witness(&daemons);
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Two daemons that form a pair, with a witness that holds the tie vote.
fn pair_with_witness(program: &Path, folder: &Path) -> (CoreDaemons, RunningProgram) {
    let daemons = CoreDaemons::blank(program, folder).unwrap();
    let running = form_pair_with_witness(&daemons, folder);
    (daemons, running)
}

fn form_pair_with_witness(daemons: &CoreDaemons, folder: &Path) -> RunningProgram {
    let (running, code) = witness(daemons, folder);
    let witness = Some(Enrol { address: "10.77.0.1".into(), code });
    daemons.ask(0, &Request::CreatePair(CreatePair { witness, ..daemons.create_pair_request(0) })).unwrap();
    daemons.wait("the first daemon to work", 0, Duration::from_secs(60), |status| status.quorum.is_some()).unwrap();
    daemons.join(1).unwrap();
    wait_for_witness(daemons);
    running
}

/// Waits until both nodes are in sync, reach the witness, and the witness holds the tie vote.
fn wait_for_witness(daemons: &CoreDaemons) {
    daemons.wait_in_sync().unwrap();
    let tie = |status: &dyad_control::Status| {
        status.quorum.as_ref().is_some_and(|quorum| {
            quorum.tie.to_string() == "W" && matches!(quorum.witness, dyad_control::WitnessStatus::Reachable { .. })
        })
    };
    for number in [0, 1] {
        daemons.wait("the witness to hold the tie", number, Duration::from_secs(60), tie).unwrap();
    }
}

/// Time for which a killed daemon is absent: longer than D (0.5 s), shorter than `restart_timeout` (1.4 s), for which a
/// node waits for a peer whose kernel closed the session.
const ABSENCE_PERIOD: Duration = Duration::from_millis(900);

#[test]
fn a_killed_daemon_that_restarts_soon_causes_no_fail_over() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("back"));
    let (mut daemons, _witness) = pair_with_witness(&program, &folder);
    let mut ring = ring(&daemons);
    ring.write_counters(50);
    let epoch = |daemons: &CoreDaemons, number| daemons.status(number).unwrap().quorum.unwrap().epoch;
    let before = epoch(&daemons, 1);
    for number in [0, 1] {
        daemons.kill(number);
        // The absence is the fault itself, not a wait for a condition.
        std::thread::sleep(ABSENCE_PERIOD);
        daemons.start(&program, number).unwrap();
        if number == 0 {
            ring.driver.reconnect().unwrap();
        }
        // A write is acknowledged when both nodes hold it, so this waits until both work together again.
        ring.write_counters(50);
        ring.check();
        daemons.wait_in_sync().unwrap();
        assert_eq!([epoch(&daemons, 0), epoch(&daemons, 1)], [before; 2], "{:?}", daemons.timeline(1 - number));
    }
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// The longest time for which a guest may wait while one node and the witness are well: D + T_io + T_cas + 5 s, 8.6 s, and time
/// for a busy machine.
const SERVICE_DEADLINE: Duration = Duration::from_secs(20);

/// Asserts that the daemon of this side becomes the only member.
fn wait_alone(daemons: &CoreDaemons, number: usize) {
    let alone = |status: &dyad_control::Status| {
        status.quorum.as_ref().is_some_and(|quorum| quorum.may_run && quorum.members.len() == 1)
    };
    daemons.wait("this node to go on alone", number, SERVICE_DEADLINE, alone).unwrap();
}

/// A firewall between the nodes, a switch that loses large frames: the peer is heard, and takes no data.
#[test]
fn a_peer_that_is_heard_and_takes_no_data_is_removed() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("data"));
    let (daemons, _witness) = pair_with_witness(&program, &folder);
    let mut ring = ring(&daemons);
    ring.write_counters(20);
    daemons.namespaces.block_data(true).unwrap();
    let begin = std::time::Instant::now();
    ring.write_counters(1);
    let waited = begin.elapsed();
    println!("the guest waited for {} ms", waited.as_millis());
    assert!(waited < SERVICE_DEADLINE, "the guest waited for {waited:?}");
    wait_alone(&daemons, 0);
    // The node that was removed runs no VM, and neither node calls the other one silent.
    let removed = |status: &dyad_control::Status| {
        status.quorum.as_ref().is_some_and(|quorum| !quorum.may_run && quorum.peer_alive)
    };
    daemons.wait("the other node to run no VM", 1, SERVICE_DEADLINE, removed).unwrap();
    ring.write_counters(20);
    daemons.namespaces.block_data(false).unwrap();
    daemons.wait_in_sync().unwrap();
    ring.write_counters(20);
    ring.check();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Neither disk returns an error, and the node with the hanging one is heard all the time.
#[test]
fn a_node_whose_pool_disk_hangs_is_removed() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("hang"));
    let (daemons, disks) = CoreDaemons::blank_on_freezable_disks(&program, &folder).unwrap();
    let _witness = form_pair_with_witness(&daemons, &folder);
    let mut ring = ring(&daemons);
    ring.write_counters(20);

    // The peer's disk: the guest goes on after a pause.
    disks[1].freeze().unwrap();
    let begin = std::time::Instant::now();
    ring.write_counters(1);
    let waited = begin.elapsed();
    println!("the guest waited for {} ms while the peer's disk hung", waited.as_millis());
    assert!(waited < SERVICE_DEADLINE, "the guest waited for {waited:?}");
    wait_alone(&daemons, 0);
    ring.write_counters(20);
    disks[1].thaw().unwrap();
    daemons.wait_in_sync().unwrap();
    ring.write_counters(20);

    // The disk under the guest: the other node goes on. Its register lies on the hanging disk as well, so it cannot accept its
    // removal, and these nodes have no watchdog: the volume is served when the disk answers again.
    disks[0].freeze().unwrap();
    let next = ring.counter + 1;
    ring.driver.begin_write(CounterRing::offset(next), &encode(next, BootNumber(1))).unwrap();
    wait_alone(&daemons, 1);
    let told = daemons.timeline(0).unwrap();
    let names_the_disk = |event: &TimelineEvent| event.text.contains("pool disk of this node does not answer");
    assert!(told.iter().any(names_the_disk), "{told:#?}");
    assert!(!ring.driver.is_answered().unwrap(), "acknowledged by a node that is no member");
    disks[0].thaw().unwrap();
    let mut there = CounterRing {
        driver: DiskDriver::connect(&daemons.wait_for_device(1, "ring").unwrap()).unwrap(),
        counter: ring.counter,
    };
    let newest = there.newest();
    assert!((ring.counter..=next).contains(&newest), "{newest}");
    there.counter = newest;
    there.write_counters(20);
    daemons.wait_in_sync().unwrap();
    there.write_counters(20);
    there.check();
    drop(daemons);
    drop(disks);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Blocks at the beginning of a volume. The content of each is its number and how often it was written, so that no two
/// contents are equal and an older one is recognised.
struct VersionedBlocks {
    driver: DiskDriver,
    /// How often each block was written; a block that never was reads as zeros.
    versions: [u64; Self::COUNT as usize],
}

impl VersionedBlocks {
    /// Number of blocks that the test may write: those of 16 extents.
    const COUNT: u64 = 256;

    /// Connects to a device whose volume was never written.
    fn new(socket: &Path) -> Self {
        Self { driver: DiskDriver::connect(socket).unwrap(), versions: [0; Self::COUNT as usize] }
    }

    fn content(&self, block: u64) -> [u8; BLOCK] {
        match self.versions[block as usize] {
            0 => [0; BLOCK],
            version => encode(version, BootNumber(block)),
        }
    }

    fn write(&mut self, block: u64) {
        self.versions[block as usize] += 1;
        self.driver.write(block * BLOCK as u64, &self.content(block)).unwrap();
        self.driver.flush().unwrap();
    }

    fn assert_unreadable(&mut self, block: u64) {
        let mut data = [0; BLOCK];
        let read = self.driver.read(block * BLOCK as u64, &mut data);
        let Err(error) = read else { panic!("block {block} was read: {:?}", decode(&data)) };
        assert!(error.to_string().contains("reports error"), "block {block}: {error}");
    }

    /// Makes the disk of side 0 fail, so that side 1 goes on alone, and connects to the volume there.
    fn move_to_peer(&mut self, daemons: &CoreDaemons, volume: &str) {
        daemons.fail_disk(0).unwrap();
        // The failure is found by a write. This one changes nothing: whether it reached the peer does not matter.
        self.driver.begin_write(0, &self.content(0)).unwrap();
        wait_alone(daemons, 1);
        self.driver = DiskDriver::connect(&daemons.wait_for_device(1, volume).unwrap()).unwrap();
    }

    /// Asserts that the blocks `lost` read as errors, and every other block with its newest content.
    fn check(&mut self, lost: &[u64]) {
        for block in 0..Self::COUNT {
            if lost.contains(&block) {
                self.assert_unreadable(block);
                continue;
            }
            let mut data = [0; BLOCK];
            self.driver.read(block * BLOCK as u64, &mut data).unwrap();
            assert!(data == self.content(block), "block {block} has not the content of its newest write");
        }
    }
}

/// The longest time until a node that came back is in sync while blocks that it needs cannot be read. They are read again for 60 s,
/// once more if a busy machine lets the data session end meanwhile, and the rest takes seconds.
const IN_SYNC_WITH_LOSS_DEADLINE: Duration = Duration::from_secs(180);

/// Makes the daemons carry out a checkpoint, and waits until that of side 0 has copied a block with this content. A pool begins a
/// checkpoint when a volume is to be freed.
fn copy_from_journal(daemons: &CoreDaemons, content: &[u8; BLOCK]) {
    let copies = || find_copies(&daemons.disk(0), content);
    let in_journal = copies().unwrap();
    daemons.create_volume("freed", 1).unwrap();
    daemons.ask(0, &Request::Change { change: Change::DeleteVolume { name: "freed".into() } }).unwrap();
    wait::until("the checkpoint to copy the block", Duration::from_secs(60), || {
        let copies = copies()?;
        let more = copies.len() > in_journal.len();
        Ok(if more { wait::Poll::Ready(()) } else { wait::Poll::NotYet(format!("{copies:?}")) })
    })
    .unwrap();
}

/// Changes the bits of every copy of a block on the disk of a side. Its daemon goes on.
fn damage(daemons: &CoreDaemons, number: usize, content: &[u8; BLOCK]) {
    assert!(
        damage_copies(&daemons.disk(number), content).unwrap() > 0,
        "the block is not on the disk of side {number}"
    );
}

/// Waits until no alarm is in force, except that of a missing watchdog: these daemons have none.
fn wait_for_no_alarm(daemons: &CoreDaemons) {
    let calm = |status: &dyad_control::Status| status.alarms.iter().all(|alarm| alarm.code == AlarmCode::PeerUnfenced);
    for number in [0, 1] {
        daemons.wait("no alarm to be in force", number, Duration::from_secs(60), calm).unwrap();
    }
}

/// Asserts that the timeline of side 0 has one entry of this kind for each of these extents, in this order, and no other one.
fn assert_told_once(daemons: &CoreDaemons, kind: &TimelineKind, extents: &[u64]) {
    let told: Vec<_> = daemons.timeline(0).unwrap().into_iter().filter(|event| event.kind == *kind).collect();
    let fits = |(event, extent): (&TimelineEvent, &u64)| event.text.contains(&format!("(extent {extent})"));
    assert!(told.len() == extents.len() && told.iter().zip(extents).all(fits), "{extents:?}: {told:#?}");
}

/// The bits of acknowledged blocks change on the disk of the only node in sync. It copies two of their extents when the other node
/// returns: of these blocks an error is given, because that node may hold older versions. The third extent was not written meanwhile, so
/// its block is repaired.
#[test]
fn blocks_that_the_survivor_cannot_read_do_not_keep_the_pair_from_being_in_sync() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("bits"));
    let mut daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let mut blocks = VersionedBlocks::new(&daemons.create_volume_with_vm("bits", 8).unwrap());
    for block in (0..VersionedBlocks::COUNT).step_by(8) {
        blocks.write(block);
    }
    // In extents 1, 5 and 12.
    let [beside_a_write, written_alone, good_on_peer] = [24, 80, 200];
    copy_from_journal(&daemons, &blocks.content(good_on_peer));
    daemons.kill(1);
    wait_alone(&daemons, 0);
    for block in (0..VersionedBlocks::COUNT / 2).step_by(16) {
        blocks.write(block);
    }
    // The block that was written alone is in the journal only, the other ones are in slots.
    let damaged = [beside_a_write, written_alone, good_on_peer];
    for block in damaged {
        damage(&daemons, 0, &blocks.content(block));
    }
    blocks.check(&damaged);
    // A daemon that opens the pool finds the damage in the journal.
    daemons.kill(0);
    daemons.start(&program, 0).unwrap();
    blocks.driver.reconnect().unwrap();
    blocks.check(&damaged);

    daemons.start(&program, 1).unwrap();
    let begin = std::time::Instant::now();
    wait::until("both nodes to be in sync", IN_SYNC_WITH_LOSS_DEADLINE, || {
        // The guest goes on meanwhile.
        blocks.write(VersionedBlocks::COUNT - 1);
        let quorum = daemons.status(0)?.quorum.context("The status has no quorum.")?;
        Ok(if quorum.members.len() == 2 { wait::Poll::Ready(()) } else { wait::Poll::NotYet(format!("{quorum:?}")) })
    })
    .unwrap();
    println!("both nodes were in sync after {} ms", begin.elapsed().as_millis());
    daemons.wait_in_sync().unwrap();
    blocks.check(&[beside_a_write, written_alone]);
    blocks.write(beside_a_write);
    blocks.check(&[written_alone]);
    assert_told_once(&daemons, &TimelineKind::Unreadable, &[1, 5, 12]);
    assert_told_once(&daemons, &TimelineKind::Lost, &[1, 5]);
    assert_eq!(daemons.status(0).unwrap().mirror.unwrap().healed_blocks, 1);
    wait_for_no_alarm(&daemons);

    // The other node has all that this one had, and knows which block is lost: also its daemon after a restart.
    daemons.kill(1);
    daemons.start(&program, 1).unwrap();
    // A write is acknowledged by both nodes, or by this one alone after the other one was removed.
    blocks.write(0);
    daemons.wait_in_sync().unwrap();
    blocks.move_to_peer(&daemons, "bits");
    blocks.check(&[written_alone]);
    blocks.write(written_alone);
    blocks.check(&[]);
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Three blocks of one extent: one can be read on the other node only, one on neither node, and one on both.
#[test]
fn a_block_that_no_member_can_read_is_told_once_and_good_after_a_write() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("both"));
    let daemons = CoreDaemons::pair(&program, &folder).unwrap();
    let mut blocks = VersionedBlocks::new(&daemons.create_volume_with_vm("both", 8).unwrap());
    let [good_on_peer, good_on_none, good_on_both] = [32, 33, 34];
    for block in [good_on_peer, good_on_none, good_on_both] {
        blocks.write(block);
    }
    for (number, block) in [(0, good_on_peer), (0, good_on_none), (1, good_on_none)] {
        damage(&daemons, number, &blocks.content(block));
    }
    // The second time all blocks are read again.
    for _ in 0..2 {
        blocks.check(&[good_on_none]);
    }
    assert_told_once(&daemons, &TimelineKind::Lost, &[2]);
    assert_eq!(daemons.status(0).unwrap().mirror.unwrap().healed_blocks, 1);
    blocks.write(good_on_none);
    blocks.check(&[]);

    blocks.move_to_peer(&daemons, "both");
    blocks.check(&[]);
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether side 0 has told of a pool, its own or its peer's, that it is full and not that it has room again.
fn is_full(daemons: &CoreDaemons) -> bool {
    let told = daemons.timeline(0).unwrap();
    ["The pool of this node", "The peer's pool"].iter().any(|whose| {
        let newest =
            told.iter().rev().find(|event| event.kind == TimelineKind::PoolFull && event.text.starts_with(whose));
        newest.is_some_and(|event| event.text.contains("is full"))
    })
}

/// A deletion makes room, so it must not wait for room, also after the session was reset.
#[test]
fn a_volume_is_deleted_while_the_pool_is_full_and_a_write_waits() {
    const MIB: usize = 1 << 20;
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("full"));
    let mut daemons = CoreDaemons::pair(&program, &folder).unwrap();
    daemons.create_volume("spare", 64).unwrap();
    let mut spare = DiskDriver::connect(&daemons.create_vm_on("spare").unwrap()).unwrap();
    for mib in 0..32 {
        spare.write(mib << 20, &[1; MIB]).unwrap();
    }
    drop(spare);
    let mut driver = DiskDriver::connect(&daemons.create_volume_with_vm("big", 2048).unwrap()).unwrap();
    let mut written = 0;
    // Until a write waits although no checkpoint runs any more.
    loop {
        assert!(written < 1024, "the pool takes more than its disk has");
        driver.begin_write(written << 20, &[2; MIB]).unwrap();
        let asked = std::time::Instant::now();
        let waits_for_room = || {
            Ok(if driver.is_answered()? {
                wait::Poll::Ready(false)
            } else if asked.elapsed() > Duration::from_secs(1) && is_full(&daemons) {
                wait::Poll::Ready(true)
            } else {
                wait::Poll::NotYet("neither".into())
            })
        };
        let what = "the write to be answered, or the pool to be full";
        if wait::until_every(Duration::from_millis(2), what, SERVICE_DEADLINE, waits_for_room).unwrap() {
            break;
        }
        driver.finish().unwrap();
        written += 1;
    }
    println!("the pool is full after {written} MiB");
    daemons.kill(1);
    daemons.start(&program, 1).unwrap();
    let begin = std::time::Instant::now();
    let change = |change| daemons.ask(0, &Request::Change { change }).map(drop);
    change(Change::SetIntent { name: "spare".into(), intent: Intent::Stopped }).unwrap();
    let Ok(Reply::Document { document }) = daemons.ask(0, &Request::Document) else { panic!("no document") };
    let changed = document.vms["spare"].changed;
    change(Change::DeleteVm { name: "spare".into(), node: NodeId::A, changed }).unwrap();
    change(Change::DeleteVolume { name: "spare".into() }).unwrap();
    println!("the volume was deleted after {} ms", begin.elapsed().as_millis());
    // The write that waited gets its room.
    driver.finish().unwrap();
    let mut data = vec![0; MIB];
    for mib in [0, written / 2, written] {
        driver.read(mib << 20, &mut data).unwrap();
        assert!(data.iter().all(|byte| *byte == 2), "MiB {mib}");
    }
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

/// All cables are pulled. The node that goes on cannot ask the other one whether a VM of it still runs: a VM made again on the
/// same disks would be a second runner.
#[test]
fn vms_of_a_lost_node_are_neither_deleted_nor_are_their_disks_used() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("fence"));
    let (daemons, _witness) = pair_with_witness(&program, &folder);
    let change = |number, change| daemons.ask(number, &Request::Change { change });
    for (name, node) in [("on-a", NodeId::A), ("on-b", NodeId::B)] {
        change(0, Change::CreateVolume { name: name.into(), size: 1 << 20, primary: node }).unwrap();
        let vm = VmConfig {
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: vec![name.into()],
            node,
            intent: Intent::Stopped,
            priority: 50,
            ha: true,
        };
        change(0, Change::CreateVm { name: name.into(), vm }).unwrap();
    }
    for cable in CABLES {
        daemons.namespaces.set_cable(cable, false).unwrap();
    }
    let alone = |number| {
        let quorum = daemons.status(number).ok().and_then(|status| status.quorum);
        quorum.is_some_and(|quorum| quorum.members.len() == 1 && quorum.may_run)
    };
    let winner = wait::until("one node to go on", Duration::from_secs(60), || {
        Ok([0, 1]
            .into_iter()
            .find(|number| alone(*number))
            .map_or(wait::Poll::NotYet("both".into()), wait::Poll::Ready))
    })
    .unwrap();
    let (vm, node) = if winner == 0 { ("on-b", NodeId::B) } else { ("on-a", NodeId::A) };
    let Ok(Reply::Document { document }) = daemons.ask(winner, &Request::Document) else { panic!("no document") };
    let changed = document.vms[vm].changed;
    let other = VmConfig { node: node.peer(), ..document.vms[vm].config.clone() };
    for refused in [
        Change::DeleteVm { name: vm.into(), node, changed },
        Change::DeleteVolume { name: vm.into() },
        Change::CreateVm { name: "twin".into(), vm: other },
    ] {
        let error = change(winner, refused.clone()).unwrap_err();
        let Some(ClientError::Refused(refusal)) = error.downcast_ref() else { panic!("{refused:?}: {error:#}") };
        assert_eq!(refusal.code, RefusalCode::PeerFence, "{refused:?}: {refusal}");
    }
    // The node cannot vouch for the other one either: the document knows where the VM is.
    let error = change(winner, Change::DeleteVm { name: vm.into(), node: node.peer(), changed }).unwrap_err();
    assert!(format!("{error:#}").contains("was changed meanwhile"), "{error:#}");
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_import_changes_nothing_until_it_is_complete() {
    const MIB: usize = 1 << 20;
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("import"));
    let mut daemons = CoreDaemons::pair(&program, &folder).unwrap();
    daemons.create_volume("disk", 4).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let core = dyad_control::Client::new(daemons.socket(0));
    let import = |bytes: usize, mut content: &[u8]| runtime.block_on(core.import("disk", bytes as u64, &mut content));
    import(2 * MIB, &[1; 2 * MIB]).unwrap();
    // A second, smaller image replaces the first one as a whole; the last loop of this test checks the bytes.
    import(MIB, &[2; MIB]).unwrap();
    let refused = import(3 * MIB, &[3; 2 * MIB]).unwrap_err().to_string();
    assert!(refused.contains("the volume holds what it held before"), "{refused}");

    let incoming = |daemons: &CoreDaemons, number| match daemons.ask(number, &Request::Document) {
        Ok(dyad_control::Reply::Document { document }) => Ok(document.volumes["disk"].incoming),
        other => Err(format!("{other:?}")),
    };
    let wait_for = |daemons: &CoreDaemons, what: &str, on_its_way: bool| {
        wait::until(what, Duration::from_secs(60), || {
            let seen = [0, 1].map(|number| incoming(daemons, number));
            let all = seen.iter().all(|seen| matches!(seen, Ok(id) if id.is_some() == on_its_way));
            Ok(if all { wait::Poll::Ready(()) } else { wait::Poll::NotYet(format!("{seen:?}")) })
        })
        .unwrap();
    };
    wait_for(&daemons, "the data of the image to be dropped", false);

    // The daemon is killed when half of an image has been sent; until then no VM can be created on the volume. The
    // buffer of 64 KiB is so small that almost all bytes that were sent have reached the daemon.
    let (mut image, mut sent) = tokio::io::duplex(64 << 10);
    let (socket, half) = (daemons.socket(0), vec![4; MIB]);
    let cut = runtime.spawn(async move { dyad_control::Client::new(socket).import("disk", 2 << 20, &mut sent).await });
    runtime.block_on(tokio::io::AsyncWriteExt::write_all(&mut image, &half)).unwrap();
    wait_for(&daemons, "the image to be on its way", true);
    let refused = daemons.create_vm_on("disk").unwrap_err().to_string();
    assert!(refused.contains("An image is being sent into the volume disk"), "{refused}");
    daemons.kill(0);
    // The import returns its error when its input ends.
    drop(image);
    assert!(runtime.block_on(cut).unwrap().is_err());
    daemons.start(&program, 0).unwrap();
    daemons.wait_in_sync().unwrap();
    wait_for(&daemons, "the data of the image to be dropped", false);

    // The same on the node that is not the lead.
    let other = Change::CreateVolume { name: "other".into(), size: 1 << 20, primary: NodeId::B };
    daemons.ask(1, &Request::Change { change: other }).unwrap();
    let id = |daemons: &CoreDaemons, number| match daemons.ask(number, &Request::Document).unwrap() {
        dyad_control::Reply::Document { document } => document.volumes["other"].id,
        other => panic!("{other:?}"),
    };
    let before = id(&daemons, 1);
    let mut content = [5; 4096].as_slice();
    runtime.block_on(dyad_control::Client::new(daemons.socket(1)).import("other", 4096, &mut content)).unwrap();
    assert_ne!(id(&daemons, 1), before);
    assert_eq!(id(&daemons, 1), id(&daemons, 0));

    let mut driver = DiskDriver::connect(&daemons.create_vm_on("disk").unwrap()).unwrap();
    let mut chunk = vec![9; MIB / 4];
    for at in (0..4 * MIB).step_by(chunk.len()) {
        driver.read(at as u64, &mut chunk).unwrap();
        let expected = if at < MIB { 2 } else { 0 };
        assert!(chunk.iter().all(|byte| *byte == expected), "at byte {at}");
    }
    drop((driver, daemons));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_join_with_a_bad_code_or_name_writes_nothing() {
    let _one = ONE_TEST_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (core_program(), folder("code"));
    let daemons = CoreDaemons::blank(&program, &folder).unwrap();
    daemons.create_pair(0).unwrap();
    let untouched = daemons.disk_usage(1).unwrap();
    let refused = |join: Join, expected: &str| {
        assert_eq!(daemons.ask(1, &Request::Join(join)).unwrap_err().to_string(), expected);
        let status = daemons.wait("the joining node to be blank", 1, Duration::from_secs(30), blank).unwrap();
        assert_eq!((status.pair, daemons.disk_content(1).unwrap()), (None, DiskContent::Blank));
        assert_eq!(daemons.disk_usage(1).unwrap(), untouched, "something was written to the disk");
        for name in ["identity.json", "unfinished.json"] {
            assert!(!daemons.state(1).join(name).exists(), "{name}");
        }
    };
    let join = daemons.prepare_join(1).unwrap();
    let other = if join.code.ends_with('7') { '8' } else { '7' };
    let wrong = Join { code: format!("{}{other}", &join.code[..5]), ..join.clone() };
    refused(wrong, "The pairing code is wrong: compare it with the one on the first node and type it again.");
    // A node that has proven the code has used it up, also if its setup fails after that.
    let named_twice = Join { node: CoreDaemons::name(0).into(), ..join.clone() };
    refused(named_twice, "The first node is already named left; give the second one another name.");
    refused(
        join.clone(),
        "No pairing code is open on the first node, or it was used already: open a new one on the first node.",
    );
    // A new code replaces the used code.
    let fresh = daemons.prepare_join(1).unwrap();
    if fresh.code != join.code {
        refused(join, "The pairing code is wrong: compare it with the one on the first node and type it again.");
    }
    daemons.ask(1, &Request::Join(fresh)).unwrap();
    daemons.wait_in_sync().unwrap();
    drop(daemons);
    std::fs::remove_dir_all(folder).unwrap();
}

fn blank(status: &dyad_control::Status) -> bool {
    status.phase == Phase::Blank
}
