//! The steps of the policy in each situation, and the steps that it never takes.

use std::collections::{BTreeMap, BTreeSet};

use dyad_desired::{Change, Document, Firmware, Intent, NodeRecord, VmConfig, apply};
use dyad_supervisor::{Observed, Phase, Step, back_off, next_wakeup, plan};
use dyad_types::{BootTime, NodeId};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn document(vms: &[(&str, Intent, u8)]) -> Document {
    let node = NodeRecord { name: "a".into(), addresses: vec![], usable_memory_mib: 0, usable_cpus: 0 };
    let mut document = Document::new_pair("pair", node, "$argon2id$x").unwrap();
    for (name, intent, priority) in vms {
        let vm = VmConfig {
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: vec![],
            node: NodeId::A,
            intent: *intent,
            priority: *priority,
            ha: true,
        };
        document = apply(&document, &Change::CreateVm { name: (*name).into(), vm }).unwrap();
    }
    document
}

fn seen(phase: Phase, since: u64, started_generation: u64, crashes: u32) -> Observed {
    Observed { phase, since: BootTime(since), started_generation, crashes, pid: None, note: None }
}

fn permits(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The plan for the one VM "web".
fn plan_for_web(now: u64, me: NodeId, document: &Document, permit: bool, observed: Option<Observed>) -> Vec<Step> {
    let observed = observed.map(|seen| ("web".to_owned(), seen)).into_iter().collect();
    plan(BootTime(now), me, document, &permits(if permit { &["web"] } else { &[] }), &observed)
}

#[test]
fn a_vm_is_started_with_a_permit_only() {
    let document = document(&[("web", Intent::Running, 0)]);
    assert_eq!(plan_for_web(0, NodeId::A, &document, true, None), [Step::Start("web".into())]);
    assert_eq!(plan_for_web(0, NodeId::A, &document, false, None), []);
    assert_eq!(plan_for_web(0, NodeId::B, &document, true, None), [], "the VM's node is the other one");
}

#[test]
fn a_vm_that_shall_not_run_is_asked_to_stop_once() {
    let document = document(&[("web", Intent::Stopped, 0)]);
    let stop = Step::ShutDown { vm: "web".into(), grace_s: 60 };
    assert_eq!(plan_for_web(0, NodeId::A, &document, true, Some(seen(Phase::Running, 0, 0, 0))), [stop]);
    assert_eq!(plan_for_web(0, NodeId::A, &document, true, Some(seen(Phase::Stopping, 0, 0, 0))), []);
    assert_eq!(
        plan_for_web(0, NodeId::A, &document, true, Some(seen(Phase::Off, 0, 0, 0))),
        [Step::Forget("web".into())]
    );
}

#[test]
fn a_process_of_a_vm_that_is_not_ours_is_killed() {
    let document = document(&[("web", Intent::Running, 0)]);
    let running = Some(seen(Phase::Running, 0, 1, 0));
    assert_eq!(plan_for_web(0, NodeId::B, &document, false, running.clone()), [Step::Kill("web".into())]);
    let gone = apply(&document, &Change::SetIntent { name: "web".into(), intent: Intent::Stopped }).unwrap();
    let gone =
        apply(&gone, &Change::DeleteVm { name: "web".into(), node: NodeId::A, changed: gone.generation }).unwrap();
    assert_eq!(plan_for_web(0, NodeId::A, &gone, false, running), [Step::Kill("web".into())]);
}

#[test]
fn a_missing_permit_kills_nothing() {
    let document = document(&[("web", Intent::Running, 0)]);
    assert_eq!(plan_for_web(0, NodeId::A, &document, false, Some(seen(Phase::Running, 0, 1, 0))), []);
}

#[test]
fn a_guest_that_switched_itself_off_stays_off() {
    let document = document(&[("web", Intent::Running, 0)]);
    let changed = document.vms["web"].changed;
    let off = Some(seen(Phase::ShutDown, 0, changed, 0));
    let steps = plan_for_web(0, NodeId::A, &document, true, off.clone());
    assert_eq!(steps, [Step::RecordGuestShutDown("web".into())]);
    let recorded = apply(&document, &steps[0].change().unwrap()).unwrap();
    assert_eq!(plan_for_web(0, NodeId::A, &recorded, true, off.clone()), [Step::Forget("web".into())]);
    assert_eq!(plan_for_web(0, NodeId::A, &recorded, true, None), []);
    let again = apply(&recorded, &Change::SetIntent { name: "web".into(), intent: Intent::Running }).unwrap();
    assert_eq!(plan_for_web(0, NodeId::A, &again, true, off), [Step::Start("web".into())]);
}

#[test]
fn a_document_older_than_the_start_does_not_stop_the_vm() {
    let old = document(&[("web", Intent::Stopped, 0)]);
    let started_generation = old.vms["web"].changed + 1;
    assert_eq!(plan_for_web(0, NodeId::A, &old, true, Some(seen(Phase::Running, 0, started_generation, 0))), []);
}

#[test]
fn the_delay_before_a_restart_grows_with_each_crash() {
    let document = document(&[("web", Intent::Running, 0)]);
    let pauses: Vec<u64> = (1..12).map(|n| back_off(n) / SECOND).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(back_off(u32::MAX) / SECOND, 300);
    let crashed = seen(Phase::Crashed, 10 * SECOND, 1, 3);
    assert_eq!(plan_for_web(13 * SECOND, NodeId::A, &document, true, Some(crashed.clone())), []);
    let due = next_wakeup(&BTreeMap::from([("web".to_owned(), crashed.clone())]));
    assert_eq!(due, Some(BootTime(14 * SECOND)));
    assert_eq!(
        plan_for_web(14 * SECOND, NodeId::A, &document, true, Some(crashed.clone())),
        [Step::Start("web".into())]
    );
    // `dyad-core` killed the VM and withdrew its permit: the crash is forgotten, and the next start has no delay.
    assert_eq!(plan_for_web(13 * SECOND, NodeId::A, &document, false, Some(crashed)), [Step::Forget("web".into())]);
}

#[test]
fn after_a_node_was_lost_vms_start_by_priority_a_few_at_a_time() {
    let vms = [("low", 1), ("db", 90), ("web", 50), ("app", 50), ("x", 0), ("y", 0)];
    let vms: Vec<_> = vms.iter().map(|(name, priority)| (*name, Intent::Running, *priority)).collect();
    let document = document(&vms);
    let all = permits(&["low", "db", "web", "app", "x", "y"]);
    let names = |steps: Vec<Step>| steps.iter().map(|step| step.vm().to_owned()).collect::<Vec<_>>();
    let first = names(plan(BootTime::ZERO, NodeId::A, &document, &all, &BTreeMap::new()));
    assert_eq!(first, ["db", "app", "web", "low"]);
    let mut observed: BTreeMap<_, _> = first.into_iter().map(|name| (name, seen(Phase::Starting, 0, 9, 0))).collect();
    assert_eq!(names(plan(BootTime::ZERO, NodeId::A, &document, &all, &observed)), [""; 0]);
    observed.insert("db".into(), seen(Phase::Running, 0, 9, 0));
    assert_eq!(names(plan(BootTime::ZERO, NodeId::A, &document, &all, &observed)), ["x"]);
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(Phase::ALL.to_vec())
}

fn intent() -> impl Strategy<Value = Intent> {
    prop::sample::select(vec![Intent::Running, Intent::Stopped, Intent::GuestShutDown])
}

proptest! {
    /// In any situation there is at most one step for each VM; a start requires permit, node, intent and no process; a
    /// kill and a shutdown require a process.
    #[test]
    fn every_step_has_its_preconditions(
        vms in prop::collection::vec((intent(), 0u8..=100, any::<bool>(), prop::option::of((phase(), 0u32..5))), 0..8),
        me in prop::sample::select(vec![NodeId::A, NodeId::B]),
        now in 0u64..400 * SECOND,
    ) {
        let names: Vec<String> = (0..vms.len()).map(|n| format!("vm{n}")).collect();
        let wanted: Vec<_> = names.iter().zip(&vms).map(|(name, vm)| (name.as_str(), vm.0, vm.1)).collect();
        let document = document(&wanted);
        let permits: BTreeSet<String> =
            names.iter().zip(&vms).filter(|(_, vm)| vm.2).map(|(name, _)| name.clone()).collect();
        let observed: BTreeMap<String, Observed> = names
            .iter()
            .zip(&vms)
            .filter_map(|(name, vm)| vm.3.map(|(phase, crashes)| (name.clone(), seen(phase, 0, 0, crashes))))
            .collect();
        let steps = plan(BootTime(now), me, &document, &permits, &observed);
        let distinct: BTreeSet<_> = steps.iter().map(Step::vm).collect();
        prop_assert_eq!(distinct.len(), steps.len());
        for step in &steps {
            let vm = &document.vms[step.vm()];
            let phase = observed.get(step.vm()).map_or(Phase::Absent, |seen| seen.phase);
            match step {
                Step::Start(name) => {
                    prop_assert!(permits.contains(name) && vm.config.node == me && vm.config.intent == Intent::Running);
                    prop_assert!(!phase.is_alive());
                }
                Step::Kill(_) => prop_assert!(phase.is_alive() && vm.config.node != me),
                Step::ShutDown { .. } => prop_assert!(phase.is_alive() && vm.config.intent != Intent::Running),
                Step::RecordGuestShutDown(_) => prop_assert_eq!(phase, Phase::ShutDown),
                Step::Forget(_) => prop_assert!(!phase.is_alive() && phase != Phase::Absent),
            }
        }
    }
}
