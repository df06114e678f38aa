//! The random faults of a run: the rate, the cause and the end of each.

use crate::machine::VmIndex;
use crate::world::{DaemonJob, FutureEvent, World};
use dyad_quorum::{MS, Nanos, SEC};
use dyad_types::NodeId;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PowerLoss,
    PowerLossOnBoth,
    DaemonKilled,
    DaemonStopped,
    LinkCut,
    LinkCutOneWay,
    LossyLink,
    WitnessLost,
    WitnessUnreachable,
    SlowWitness,
    NodeCutOff,
    SlowKernel,
    VmMoved,
    VmDied,
    NodeLeaves,
    VolumeMade,
}

impl Fault {
    /// The name in the event log and in [`crate::RunResult::faults`].
    fn name(self) -> &'static str {
        match self {
            Fault::PowerLoss => "power lost",
            Fault::PowerLossOnBoth => "power lost on both",
            Fault::DaemonKilled => "daemon killed",
            Fault::DaemonStopped => "daemon stopped",
            Fault::LinkCut => "link cut",
            Fault::LinkCutOneWay => "link cut one way",
            Fault::LossyLink => "lossy link",
            Fault::WitnessLost => "witness lost",
            Fault::WitnessUnreachable => "witness out of reach",
            Fault::SlowWitness => "slow witness",
            Fault::NodeCutOff => "node cut off",
            Fault::SlowKernel => "kernel does not confirm",
            Fault::VmMoved => "VM moved",
            Fault::VmDied => "VM died",
            Fault::NodeLeaves => "node leaves",
            Fault::VolumeMade => "volume made and deleted",
        }
    }
}

/// The share of each kind among the faults, in percent. The sum is 100.
///
/// One draw of 0 to 99 chooses the kind, in the order of the fields. A change of the order or of a value changes the
/// runs of all recorded seeds.
struct FaultRates {
    power_loss_pct: u64,
    power_loss_on_both_pct: u64,
    daemon_killed_pct: u64,
    daemon_stopped_pct: u64,
    link_cut_pct: u64,
    link_cut_one_way_pct: u64,
    lossy_link_pct: u64,
    witness_lost_pct: u64,
    witness_unreachable_pct: u64,
    slow_witness_pct: u64,
    node_cut_off_pct: u64,
    slow_kernel_pct: u64,
    vm_moved_pct: u64,
    vm_died_pct: u64,
    node_leaves_pct: u64,
    volume_made_pct: u64,
}

const RATES: FaultRates = FaultRates {
    power_loss_pct: 12,
    power_loss_on_both_pct: 4,
    daemon_killed_pct: 12,
    daemon_stopped_pct: 8,
    link_cut_pct: 12,
    link_cut_one_way_pct: 8,
    lossy_link_pct: 8,
    witness_lost_pct: 8,
    witness_unreachable_pct: 6,
    slow_witness_pct: 4,
    node_cut_off_pct: 5,
    slow_kernel_pct: 2,
    vm_moved_pct: 3,
    vm_died_pct: 4,
    node_leaves_pct: 2,
    volume_made_pct: 2,
};

/// Share of faults that follow the fault before within [`FOLLOW_UP_DELAY`], of a thousand: faults often come together.
const FOLLOW_UP_PERMILLE: u64 = 350;
/// Longest delay of a fault that follows the fault before.
const FOLLOW_UP_DELAY: Nanos = 500 * MS;
/// Share of short cuts among all cuts, of a thousand.
const SHORT_CUT_PERMILLE: u64 = 500;
/// Share of cut-off machines whose kernel is slow as well, of a thousand.
const CUT_OFF_SLOW_KERNEL_PERMILLE: u64 = 300;
/// Share of register writes under way that are on the disk after a power loss or a kill, of a thousand.
const WRITE_COMPLETED_PERMILLE: u64 = 500;

impl FaultRates {
    /// Each rate with its kind, in the order of the draw.
    fn table(&self) -> [(u64, Fault); 16] {
        [
            (self.power_loss_pct, Fault::PowerLoss),
            (self.power_loss_on_both_pct, Fault::PowerLossOnBoth),
            (self.daemon_killed_pct, Fault::DaemonKilled),
            (self.daemon_stopped_pct, Fault::DaemonStopped),
            (self.link_cut_pct, Fault::LinkCut),
            (self.link_cut_one_way_pct, Fault::LinkCutOneWay),
            (self.lossy_link_pct, Fault::LossyLink),
            (self.witness_lost_pct, Fault::WitnessLost),
            (self.witness_unreachable_pct, Fault::WitnessUnreachable),
            (self.slow_witness_pct, Fault::SlowWitness),
            (self.node_cut_off_pct, Fault::NodeCutOff),
            (self.slow_kernel_pct, Fault::SlowKernel),
            (self.vm_moved_pct, Fault::VmMoved),
            (self.vm_died_pct, Fault::VmDied),
            (self.node_leaves_pct, Fault::NodeLeaves),
            (self.volume_made_pct, Fault::VolumeMade),
        ]
    }

    /// The kind for a draw of 0 to 99.
    fn kind(&self, draw: u64) -> Fault {
        let mut end = 0;
        for (rate, fault) in self.table() {
            end += rate;
            if draw < end {
                return fault;
            }
        }
        panic!("the fault rates add up to {end} %, and {draw} was drawn");
    }
}

impl World {
    /// Causes one random fault, and schedules the next one.
    pub(crate) fn random_fault(&mut self) {
        if !self.faults_enabled {
            return;
        }
        let follows = self.prng.chance(FOLLOW_UP_PERMILLE);
        let pause = if follows { self.prng.below(FOLLOW_UP_DELAY) } else { self.prng.within(SEC..10 * SEC) };
        self.schedule(pause, FutureEvent::Fault);
        let node = self.prng.below(2) as usize;
        let fault = RATES.kind(self.prng.below(100));
        self.begin_fault(fault, node);
        *self.result.faults.entry(fault.name()).or_default() += 1;
        self.log_line(node, format!("FAULT {}", fault.name()));
    }

    fn begin_fault(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::PowerLoss => self.power_cycle(node),
            Fault::PowerLossOnBoth => {
                self.power_cycle(node);
                self.power_cycle(1 - node);
            }
            Fault::DaemonKilled => self.kill_core(node),
            Fault::DaemonStopped => {
                self.nodes[node].stopped = true;
                let length = self.prng.within(50 * MS..8 * SEC);
                self.schedule(length, FutureEvent::ContinueCore(node));
            }
            Fault::LinkCut => {
                self.link.cut = [true; 2];
                let length = self.short_or_long();
                self.schedule(length, FutureEvent::RestoreNetwork);
            }
            Fault::LinkCutOneWay => {
                self.link.cut[node] = true;
                let length = self.short_or_long();
                self.schedule(length, FutureEvent::RestoreNetwork);
            }
            Fault::LossyLink => {
                self.link.loss = self.prng.within(20..400);
                self.link.duplicate = self.prng.below(200);
                self.link.jitter = self.prng.within(MS..150 * MS);
                let length = self.prng.within(SEC..10 * SEC);
                self.schedule(length, FutureEvent::RestoreNetwork);
            }
            Fault::WitnessLost => {
                self.witness_up = false;
                let length = self.prng.within(SEC..50 * SEC);
                self.schedule(length, FutureEvent::RestoreWitness);
            }
            Fault::WitnessUnreachable => {
                self.reaches_witness[node] = false;
                let length = self.prng.within(SEC..30 * SEC);
                self.schedule(length, FutureEvent::RestoreWitness);
            }
            Fault::SlowWitness => self.witness_rtt = self.prng.within(5 * MS..3 * SEC),
            Fault::NodeCutOff => {
                // The fault affects all network cards of one machine.
                self.link.cut = [true; 2];
                self.reaches_witness[node] = false;
                let length = self.prng.within(100 * MS..20 * SEC);
                self.schedule(length, FutureEvent::RestoreNetwork);
                self.schedule(length, FutureEvent::RestoreWitness);
                if self.prng.chance(CUT_OFF_SLOW_KERNEL_PERMILLE) {
                    self.nodes[node].kernel_slow_until = self.now + length;
                }
            }
            Fault::SlowKernel => self.nodes[node].kernel_slow_until = self.now + self.prng.within(SEC..12 * SEC),
            Fault::VmMoved => {
                let vm = VmIndex(self.prng.below(2) as usize);
                let to = if node == 0 { NodeId::A } else { NodeId::B };
                self.move_vm(vm, to);
            }
            Fault::VmDied => {
                let vm = VmIndex(self.prng.below(2) as usize);
                if self.nodes[node].vms[vm.0].in_cgroup {
                    self.end_vm(node, vm);
                }
            }
            Fault::NodeLeaves => {
                if !self.nodes[node].stopped {
                    self.place(node, dyad_placement::Event::Leave);
                    self.settle_core_model(node);
                }
            }
            Fault::VolumeMade => (0..2).for_each(|node| self.make_scratch_volume(node)),
        }
    }

    pub(crate) fn power_cycle(&mut self, node: usize) {
        self.power_off(node);
        let off = self.prng.within(SEC..20 * SEC);
        self.schedule(off, FutureEvent::PowerOn(node));
    }

    fn short_or_long(&mut self) -> u64 {
        if self.prng.chance(SHORT_CUT_PERMILLE) {
            self.prng.within(20 * MS..1500 * MS)
        } else {
            self.prng.within(SEC..20 * SEC)
        }
    }

    /// Takes the power from the machine: data that was not synced may be lost.
    pub(crate) fn power_off(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.finish_or_lose_register_write(node);
        self.drop_core(node);
        for vm in VmIndex::all() {
            self.end_vm(node, vm);
        }
        let machine = &mut self.nodes[node];
        machine.vms = Default::default();
        machine.supervisor_input = None;
        machine.up = false;
        machine.frozen = false;
        machine.kernel_slow_until = 0;
        machine.watchdog_at = u64::MAX;
        machine.kept_memory = false;
        machine.must_be_complete = false;
        machine.disk.crash();
        self.on_memory_lost();
    }

    pub(crate) fn power_on(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.nodes[node];
        if machine.up {
            return;
        }
        machine.up = true;
        machine.boots += 1;
        machine.boot_at = now;
        let boot = machine.boots;
        self.start_core(node);
        let delay = self.prng.within(MS..2 * SEC);
        self.schedule(delay, FutureEvent::Supervise { node, boot });
    }

    /// `kill -9` of the daemon; init restarts it after 50 to 800 ms.
    pub(crate) fn kill_core(&mut self, node: usize) {
        if self.nodes[node].core.is_none() {
            return;
        }
        self.finish_or_lose_register_write(node);
        self.drop_core(node);
        self.nodes[node].disk.kill();
        let boot = self.nodes[node].boots;
        let delay = self.prng.within(50 * MS..800 * MS);
        self.schedule(delay, FutureEvent::StartCore { node, boot });
    }

    fn drop_core(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.core = None;
        machine.daemon_run += 1;
        machine.stopped = false;
        machine.backlog.clear();
        self.close_session(node);
    }

    /// Puts a write of the register that is under way on the disk, or loses it, at random.
    fn finish_or_lose_register_write(&mut self, node: usize) {
        let daemon_run = self.nodes[node].daemon_run;
        let under_way: Vec<_> = self
            .pending()
            .filter_map(|due| match due {
                FutureEvent::Job { node: to, daemon_run: of, job: DaemonJob::Persisted(_, record) }
                    if *to == node && *of == daemon_run =>
                {
                    Some(record.clone())
                }
                _ => None,
            })
            .collect();
        for record in under_way {
            if self.prng.chance(WRITE_COMPLETED_PERMILLE) {
                self.nodes[node].record = record;
            }
        }
    }

    pub(crate) fn continue_core(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].stopped) {
            return;
        }
        for job in std::mem::take(&mut self.nodes[node].backlog) {
            self.run_job(node, job);
        }
    }

    /// Resets the machine if its watchdog was not fed in time; else schedules the next check.
    pub(crate) fn check_watchdog(&mut self, node: usize, boot: u64) {
        let machine = &self.nodes[node];
        if !machine.up || machine.boots != boot {
            return;
        }
        if self.now < machine.watchdog_at {
            let delay = machine.watchdog_at - self.now;
            return self.schedule(delay, FutureEvent::Watchdog { node, boot });
        }
        self.log_line(node, "the watchdog resets the machine".into());
        self.count_event("watchdog resets");
        self.power_off(node);
        let boot_time = self.prng.within(3 * SEC..12 * SEC);
        self.schedule(boot_time, FutureEvent::PowerOn(node));
    }

    /// Ends every fault and schedules no new one.
    pub(crate) fn end_all_faults(&mut self) {
        self.faults_enabled = false;
        self.end_partial_fault();
        self.restore_network();
        self.restore_witness();
        self.witness_rtt = 20 * MS;
        for node in 0..2 {
            self.nodes[node].kernel_slow_until = 0;
            self.continue_core(node);
            self.schedule(SEC, FutureEvent::PowerOn(node));
        }
    }

    pub(crate) fn restore_network(&mut self) {
        self.link.cut = [false; 2];
        self.link.loss = 0;
        self.link.duplicate = 0;
        self.link.jitter = MS;
    }

    pub(crate) fn restore_witness(&mut self) {
        self.witness_up = true;
        self.reaches_witness = [true; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_add_up_to_one_hundred_percent() {
        assert_eq!(RATES.table().iter().map(|(rate, _)| rate).sum::<u64>(), 100);
        assert_eq!(
            (RATES.kind(0), RATES.kind(11), RATES.kind(12)),
            (Fault::PowerLoss, Fault::PowerLoss, Fault::PowerLossOnBoth)
        );
        assert_eq!(
            (RATES.kind(91), RATES.kind(92), RATES.kind(99)),
            (Fault::VmMoved, Fault::VmDied, Fault::VolumeMade)
        );
    }
}
