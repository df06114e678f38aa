//! The supervisor of `dyad-node` on one node: the shipped policy, over a model of processes. A launcher is forked, enters the
//! cgroup of all VMs later, and executes there unless the cgroup is frozen.

use crate::guests::Request;
use crate::machine::VmIndex;
use crate::world::{DaemonJob, FutureEvent, World};
use dyad_placement::LeaveEnd;
use dyad_quorum::{MS, Nanos, SEC};
use dyad_supervisor::{Observed, Phase, Step, VmEvent, plan};
use std::collections::BTreeMap;

/// Longest run after which a crash counts as the first one again.
const STABLE_RUN_PERIOD: Nanos = 10 * SEC;

impl World {
    /// Takes the newest permits and document from the daemon, if it answers, and carries out the policy's plan.
    pub(crate) fn supervise(&mut self, node: usize, boot: u64) {
        let machine = &self.nodes[node];
        if !machine.up || machine.boots != boot {
            return;
        }
        let pause = self.prng.within(10 * MS..90 * MS);
        self.schedule(pause, FutureEvent::Supervise { node, boot });
        let machine = &mut self.nodes[node];
        let clock = machine.clock(self.now);
        // Without an answer the supervisor goes on with its last input.
        if let Some(core) = machine.core.as_ref().filter(|_| !machine.stopped)
            && let Some(document) = core.model.placement.document().newest()
        {
            machine.supervisor_input = Some((document.clone(), core.model.placement.permits().clone()));
        }
        let Some((document, permits)) = &machine.supervisor_input else { return };
        let observed: BTreeMap<String, Observed> = VmIndex::all()
            .filter(|vm| machine.vms[vm.0].phase != Phase::Absent)
            .map(|vm| (vm.name(), machine.vms[vm.0].observed()))
            .collect();
        let steps = plan(clock, machine.id, document, permits, &observed);
        let changed: BTreeMap<String, u64> = document.vms.iter().map(|(name, vm)| (name.clone(), vm.changed)).collect();
        for step in steps {
            let Some(vm) = VmIndex::all().find(|vm| vm.name() == step.vm()) else { continue };
            match step {
                Step::Kill(_) => self.kill_process(node, vm),
                Step::ShutDown { .. } => {
                    self.vm_event(node, vm, VmEvent::Stop);
                    let delay = self.prng.within(5 * MS..400 * MS);
                    self.schedule(delay, FutureEvent::GuestStops { node, boot, vm });
                }
                Step::Start(name) => self.fork_launcher(node, vm, changed.get(&name).copied().unwrap_or(0)),
                Step::Forget(_) => self.vm_event(node, vm, VmEvent::Forget),
                Step::RecordGuestShutDown(_) => {}
            }
        }
    }

    fn vm_event(&mut self, node: usize, vm: VmIndex, event: VmEvent) {
        let clock = self.nodes[node].clock(self.now);
        let state = &mut self.nodes[node].vms[vm.0];
        match state.phase.after(event) {
            Ok(phase) if phase == state.phase => {}
            Ok(phase) => {
                if phase == Phase::Crashed {
                    let stable = clock.since(state.since) > STABLE_RUN_PERIOD;
                    state.crashes = if stable { 1 } else { state.crashes + 1 };
                }
                (state.phase, state.since) = (phase, clock);
            }
            Err(error) => self.report_violation(format!("node {node}: {error}")),
        }
    }

    fn fork_launcher(&mut self, node: usize, vm: VmIndex, changed: u64) {
        self.vm_event(node, vm, VmEvent::Start);
        let launch = self.nodes[node].newest_launch + 1;
        self.nodes[node].newest_launch = launch;
        let state = &mut self.nodes[node].vms[vm.0];
        (state.launch, state.started_generation) = (launch, changed);
        // Mostly fast, as the kernel forks; sometimes the new process waits for a processor.
        let delay = if self.prng.chance(100) { self.prng.below(2 * SEC) } else { self.prng.within(MS..40 * MS) };
        let boot = self.nodes[node].boots;
        self.schedule(delay, FutureEvent::EnterCgroup { node, boot, vm, launch });
    }

    /// The launcher of a VM enters the cgroup and becomes its process.
    pub(crate) fn enter_cgroup(&mut self, node: usize, boot: u64, vm: VmIndex, launch: u64) {
        let machine = &mut self.nodes[node];
        if !machine.up || machine.boots != boot || machine.vms[vm.0].launch != launch {
            return;
        }
        machine.vms[vm.0].in_cgroup = true;
        self.vm_event(node, vm, VmEvent::Ready);
        self.count_event("VM starts");
        self.log_line(node, format!("VM {vm} starts"));
        if self.nodes[node].executes(vm) {
            self.check_not_leaving(node);
        }
        self.note_executing(node);
    }

    /// Checks the replicas of the VMs that execute since the last call.
    pub(crate) fn note_executing(&mut self, node: usize) {
        for vm in VmIndex::all() {
            if self.nodes[node].executes(vm) && !std::mem::replace(&mut self.nodes[node].vms[vm.0].was_checked, true) {
                self.check_start(node, vm);
            }
        }
    }

    /// The guest has shut down, as the supervisor asked. A frozen guest does so later.
    pub(crate) fn guest_stops(&mut self, node: usize, boot: u64, vm: VmIndex) {
        let machine = &self.nodes[node];
        if !machine.up || machine.boots != boot || machine.vms[vm.0].phase != Phase::Stopping {
            return;
        }
        if machine.vms[vm.0].in_cgroup && machine.frozen {
            return self.schedule(50 * MS, FutureEvent::GuestStops { node, boot, vm });
        }
        self.end_vm(node, vm);
    }

    fn kill_process(&mut self, node: usize, vm: VmIndex) {
        self.vm_event(node, vm, VmEvent::Kill);
        self.end_vm(node, vm);
    }

    /// Ends the VM's process or launcher and forgets its requests.
    pub(crate) fn end_vm(&mut self, node: usize, vm: VmIndex) {
        let state = &mut self.nodes[node].vms[vm.0];
        (state.in_cgroup, state.was_checked, state.launch) = (false, false, 0);
        let open = std::mem::take(&mut state.open);
        state.answers.clear();
        if state.phase.is_alive() {
            self.vm_event(node, vm, VmEvent::Gone);
        }
        // The other node may run the VM already, and its writes stay open.
        for request in open.into_values() {
            if let Request::Write { block, count, value, .. } | Request::Discard { block, count, value } = request {
                self.oracle.write_ended(crate::guests::volume(vm), block.run(count), value);
            }
        }
    }

    /// Goes on after a leave that was asked for. After a complete one the machine restarts, as for an update, or the operator
    /// calls the leave off.
    pub(crate) fn leave_ended(&mut self, node: usize, end: LeaveEnd) {
        self.log_line(node, format!("the leave ends: {end:?}"));
        if end == LeaveEnd::Complete {
            self.count_event("leaves completed");
            let delay = self.prng.within(MS..5 * SEC);
            if self.prng.chance(500) {
                self.schedule_job(node, delay, DaemonJob::Placement(dyad_placement::Event::CancelLeave));
            } else {
                let boot = self.nodes[node].boots;
                self.schedule(delay, FutureEvent::Restart { node, boot });
            }
        }
    }

    /// The kernel kills every process in the cgroup. A launcher that has not entered it goes on.
    pub(crate) fn kill_cgroup(&mut self, node: usize) {
        for vm in VmIndex::all() {
            if self.nodes[node].vms[vm.0].in_cgroup {
                self.end_vm(node, vm);
            }
        }
    }
}
