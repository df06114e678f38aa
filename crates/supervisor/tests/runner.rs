//! The runner with a real QEMU (emulated processor) and a guest of 84 bytes.

mod common;

use std::io::Write as _;
use std::time::Duration;

use common::*;
use dyad_desired::Firmware;
use dyad_supervisor::{EventKind, Phase, RunnerError, VmSpec};

/// The program that [`exec_launcher`] names: it enters the cgroup and executes QEMU. As a test of its own it checks the
/// usage text.
#[test]
fn exec_helper() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--nocapture")
        && arguments.len() > at + 1
    {
        let error = dyad_supervisor::exec_in_cgroup(arguments[at + 1..].iter().cloned());
        panic!("{error}");
    }
    // Run as a test it has no arguments.
    let usage = dyad_supervisor::exec_in_cgroup(Vec::new());
    assert!(usage.to_string().contains("CGROUP -- PROGRAM"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_starts_uses_its_serial_line_and_switches_itself_off() {
    let mut node = Node::new();
    node.start().await;
    let EventKind::Started { pid } = node.wait_for_event(|kind| matches!(kind, EventKind::Started { .. })).await else {
        unreachable!()
    };
    if let Some(cgroup) = node.cgroup() {
        wait_for("the VM to be in its own cgroup", || cgroup.pids() == [pid]).await;
    }
    node.wait_for_event(|kind| *kind == EventKind::FirstOutput).await;
    node.wait_for_phase(Phase::Running).await;
    let console = node.runner.console(VM).unwrap();
    let mut viewer = node.read_until("hello\r\n").await;
    assert!(console.send("ping".into()));
    read_more(&mut viewer, "ping").await;
    assert!(node.runner.vnc_socket(VM).unwrap().exists());
    assert!(console.send("q".into()));
    node.wait_for_phase(Phase::ShutDown).await;
    read_more(&mut viewer, "bye\r\n").await;
    assert!(!alive(pid), "QEMU has ended");
    assert!(node.cgroup().is_none_or(|cgroup| !cgroup.dir().exists()));
    assert_eq!(node.observed().note.unwrap(), "The guest switched itself off.");
    node.runner.forget(VM);
    assert!(node.runner.observed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_asked_to_shut_down_is_not_killed() {
    let mut node = Node::new();
    node.start().await;
    node.read_until("hello").await;
    node.runner.shut_down(VM, 60);
    node.wait_for_phase(Phase::Off).await;
    let subscription = node.runner.console(VM).unwrap().subscribe();
    assert!(String::from_utf8_lossy(&subscription.recent).contains("bye"), "it was not killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_shut_down_is_killed_after_the_grace_period() {
    let mut node = Node::with_code(&UNRESPONSIVE_GUEST);
    node.start().await;
    node.read_until("x").await;
    node.runner.shut_down(VM, 1);
    node.wait_for_phase(Phase::Off).await;
    assert_eq!(node.observed().crashes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_ends_the_process_also_while_it_is_frozen() {
    let mut node = Node::new();
    node.start().await;
    node.read_until("hello").await;
    let pid = node.observed().pid.unwrap();
    match node.cgroup() {
        Some(cgroup) => std::fs::write(cgroup.dir().join("cgroup.freeze"), "1").unwrap(),
        None => stop_process(pid),
    }
    node.runner.kill(VM);
    node.wait_for_phase(Phase::Off).await;
    assert!(!alive(pid));
}

/// A runner that took the lack of news for a missed deadline killed each quiet VM after 24 h.
#[tokio::test]
async fn a_vm_without_any_event_for_a_hundred_days_is_not_killed() {
    let mut node = Node::new();
    node.start().await;
    node.wait_for_phase(Phase::Running).await;
    node.read_until("hello").await;
    let pid = node.observed().pid;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(100 * 24 * 3600)).await;
    tokio::time::resume();
    node.type_until("ping", "ping").await;
    let seen = node.observed();
    assert_eq!((seen.phase, seen.pid), (Phase::Running, pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_runner_finds_a_running_vm_and_its_serial_line() {
    let mut node = Node::new();
    node.start().await;
    node.read_until("hello").await;
    let pid = node.observed().pid.unwrap();
    node.restart_runner();
    assert!(alive(pid), "the end of the runner is not the end of the VM");
    node.runner.adopt().unwrap();
    assert_eq!(node.observed().pid, Some(pid));
    assert_eq!(node.runner.running(), [VM]);
    let (start, again) = (node.observed(), node.spec());
    node.runner.start(&again).unwrap();
    assert_eq!(node.observed(), start, "a VM has at most one process");
    node.wait_for_event(|kind| *kind == EventKind::Adopted { pid }).await;
    node.type_until("ping", "ping").await;
    node.runner.shut_down(VM, 60);
    node.wait_for_phase(Phase::Off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_shutdown_without_a_runner_is_found_by_the_next_one() {
    let mut node = Node::new();
    node.start().await;
    node.wait_for_phase(Phase::Running).await;
    node.read_until("hello").await;
    let pid = node.observed().pid.unwrap();
    node.restart_runner();
    // Without a runner: the guest is told over its serial line to shut down.
    let said = node.type_without_runner("q", "bye").await;
    assert!(said.contains("bye"));
    assert!(alive(pid), "QEMU waits for the command to quit");
    node.runner.adopt().unwrap();
    node.wait_for_phase(Phase::ShutDown).await;
    // The record survives a second restart.
    node.restart_runner();
    node.runner.adopt().unwrap();
    assert_eq!(node.observed().phase, Phase::ShutDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_ended_without_a_runner_is_a_crash() {
    let mut node = Node::new();
    node.start().await;
    node.wait_for_phase(Phase::Running).await;
    let pid = node.observed().pid.unwrap();
    node.restart_runner();
    kill_process(pid);
    wait_for("the end of QEMU", || !alive(pid)).await;
    node.runner.adopt().unwrap();
    let seen = node.observed();
    assert_eq!((seen.phase, seen.crashes), (Phase::Crashed, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_counted_and_its_note_quotes_qemu() {
    let mut node = Node::new();
    let spec = VmSpec { cpus: 100_000, ..node.spec() };
    for crashes in 1..=2 {
        node.runner.start(&spec).unwrap();
        node.wait_for_phase(Phase::Crashed).await;
        let seen = node.observed();
        assert_eq!(seen.crashes, crashes);
        assert!(seen.note.as_ref().unwrap().contains("CPUs"), "{:?}", seen.note);
    }
    // A run that does not crash ends the series of crashes.
    node.start().await;
    node.read_until("hello").await;
    node.runner.kill(VM);
    node.wait_for_phase(Phase::Off).await;
    assert_eq!(node.observed().crashes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_qemu_is_reported_in_one_sentence() {
    let mut node = Node::new();
    node.settings.cgroup_root = None;
    node.settings.host.qemu = "/nonexistent/qemu".into();
    node.restart_runner();
    let spec = VmSpec { disks: vec![], ..node.spec() };
    let error = node.runner.start(&spec).unwrap_err();
    assert!(matches!(error, RunnerError::Spawn { .. }));
    assert!(error.to_string().contains("check that QEMU is installed"));
    assert_eq!(node.observed().phase, Phase::Crashed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uefi_variables_of_a_vm_are_kept_until_it_is_deleted() {
    let mut node = Node::new();
    let spec = VmSpec { firmware: Firmware::Uefi, ..node.spec() };
    node.runner.start(&spec).unwrap();
    node.wait_for_phase(Phase::Running).await;
    let vars = node.settings.state_dir.join("vm.vars");
    let template = std::fs::metadata(&node.settings.ovmf_vars).unwrap().len();
    assert_eq!(std::fs::metadata(&vars).unwrap().len(), template);
    node.runner.keep_only(|_| false);
    assert!(vars.exists() && node.runner.console(VM).is_some(), "it has a process");
    node.runner.kill(VM);
    node.wait_for_phase(Phase::Off).await;
    // The record is forgotten after any stop; the VM is deleted later.
    node.runner.forget(VM);
    node.runner.keep_only(|name| name == VM);
    assert!(vars.exists() && node.runner.console(VM).is_some());
    node.runner.keep_only(|_| false);
    assert!(!vars.exists() && node.runner.console(VM).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_without_a_record_in_vm_cgroups_are_killed_at_adoption() {
    let mut node = Node::new();
    let Some(cgroup) = node.cgroup() else {
        // Not by `eprintln!`: what a test prints that way is shown only if it fails.
        let _ = writeln!(std::io::stderr(), "SKIPPED: a cgroup of its own needs root");
        return;
    };
    cgroup.create().unwrap();
    let mut foreign = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(cgroup.dir().join("cgroup.procs"), foreign.id().to_string()).unwrap();
    node.runner.adopt().unwrap();
    let status = tokio::task::spawn_blocking(move || foreign.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    wait_for("the end of the cgroup", || !cgroup.dir().exists()).await;
}

#[tokio::test]
async fn the_trial_finds_the_accelerators_that_work() {
    use dyad_supervisor::accelerator::{Accelerator, PROBE_TIMEOUT, Trial, decide};
    use dyad_supervisor::command::QemuVersion;
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu();
    let trial = Trial { qemu: &qemu, dir: dir.path() };
    assert!(trial.boots(Accelerator::Tcg, PROBE_TIMEOUT).await, "emulation boots a sector");
    assert!(!trial.boots(Accelerator::Tcg, Duration::from_millis(1)).await, "the deadline holds");
    // Ends at once with another exit code, as QEMU does that cannot use the accelerator.
    let refusing = Trial { qemu: "/bin/false".as_ref(), ..trial };
    assert!(!refusing.boots(Accelerator::Tcg, PROBE_TIMEOUT).await);
    let missing = Trial { qemu: "/nonexistent".as_ref(), ..trial };
    assert!(!missing.boots(Accelerator::Tcg, PROBE_TIMEOUT).await);
    let proof = dir.path().join("proof.json");
    let version = QemuVersion { major: 10, minor: 0 };
    let decided = decide(trial, version, &proof).await;
    let again = decide(missing, version, &proof).await;
    assert_eq!(decided, again, "the second answer is the stored result");
}
