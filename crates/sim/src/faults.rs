//! Faults, each with a name, a time and an end.

use crate::world::{Due, Job, World};
use dyad_quorum::{MS, SEC};
use dyad_types::NodeId;

impl World {
    /// One fault, and when the next one comes.
    pub(crate) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        // Troubles come together: every third fault follows the one before within half a second.
        let pause = if self.prng.chance(350) { self.prng.below(500 * MS) } else { self.prng.within(SEC, 10 * SEC) };
        self.put(pause, Due::Fault);
        let node = self.prng.below(2) as usize;
        let name = match self.prng.below(100) {
            0..12 => {
                self.power_off(node);
                let dark = self.prng.within(SEC, 20 * SEC);
                self.put(dark, Due::PowerOn(node));
                "power lost"
            }
            12..16 => {
                for node in [node, 1 - node] {
                    self.power_off(node);
                    let dark = self.prng.within(SEC, 20 * SEC);
                    self.put(dark, Due::PowerOn(node));
                }
                "power lost on both"
            }
            16..30 => {
                self.kill_core(node);
                "daemon killed"
            }
            30..38 => {
                self.nodes[node].stopped = true;
                let length = self.prng.within(50 * MS, 8 * SEC);
                self.put(length, Due::Continue(node));
                "daemon stopped"
            }
            38..52 => {
                self.net.cut = [true; 2];
                let length = self.short_or_long();
                self.put(length, Due::Mend);
                "link cut"
            }
            52..60 => {
                self.net.cut[node] = true;
                let length = self.short_or_long();
                self.put(length, Due::Mend);
                "link cut one way"
            }
            60..68 => {
                self.net.loss = self.prng.within(20, 400);
                self.net.double = self.prng.below(200);
                self.net.jitter = self.prng.within(MS, 150 * MS);
                let length = self.prng.within(SEC, 10 * SEC);
                self.put(length, Due::Mend);
                "lossy link"
            }
            68..76 => {
                self.witness_up = false;
                let length = self.prng.within(SEC, 50 * SEC);
                self.put(length, Due::WitnessBack);
                "witness lost"
            }
            76..82 => {
                self.reach[node] = false;
                let length = self.prng.within(SEC, 30 * SEC);
                self.put(length, Due::WitnessBack);
                "witness out of reach"
            }
            82..86 => {
                self.witness_rtt = self.prng.within(5 * MS, 3 * SEC);
                "slow witness"
            }
            86..91 => {
                // All network cards of one machine.
                self.net.cut = [true; 2];
                self.reach[node] = false;
                let length = self.prng.within(100 * MS, 20 * SEC);
                self.put(length, Due::Mend);
                self.put(length, Due::WitnessBack);
                if self.prng.chance(300) {
                    // The whole machine is ill.
                    self.nodes[node].kernel_slow_until = self.now + length;
                }
                "node cut off"
            }
            91..93 => {
                self.nodes[node].kernel_slow_until = self.now + self.prng.within(SEC, 12 * SEC);
                "kernel does not confirm"
            }
            93..96 => {
                let vm = self.prng.below(2) as usize;
                let to = if node == 0 { NodeId::A } else { NodeId::B };
                self.move_vm(vm, to);
                "VM moved"
            }
            _ => {
                let vm = self.prng.below(2) as usize;
                self.end_vm(node, vm);
                "VM died"
            }
        };
        *self.outcome.faults.entry(name).or_default() += 1;
        self.note(node, format!("FAULT {name}"));
    }

    fn short_or_long(&mut self) -> u64 {
        if self.prng.chance(500) { self.prng.within(20 * MS, 1500 * MS) } else { self.prng.within(SEC, 20 * SEC) }
    }

    /// The machine loses its power: what was not synced may be gone.
    pub(crate) fn power_off(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.tear_register(node);
        self.drop_core(node);
        for vm in 0..crate::machine::VMS {
            self.end_vm(node, vm);
        }
        let machine = &mut self.nodes[node];
        machine.up = false;
        machine.frozen = false;
        machine.kernel_slow_until = 0;
        machine.watchdog_at = u64::MAX;
        machine.complete = false;
        machine.proven = false;
        machine.disk.crash();
        self.check_memories();
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
        self.start_core(node);
    }

    /// `kill -9`; init starts it again.
    pub(crate) fn kill_core(&mut self, node: usize) {
        if self.nodes[node].core.is_none() {
            return;
        }
        self.tear_register(node);
        self.drop_core(node);
        self.nodes[node].disk.kill();
        let boot = self.nodes[node].boots;
        let delay = self.prng.within(50 * MS, 800 * MS);
        self.put(delay, Due::StartCore { node, boot });
    }

    fn drop_core(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        machine.core = None;
        machine.life += 1;
        machine.stopped = false;
        machine.backlog.clear();
        self.disconnect(node);
    }

    /// A write of the register under way may or may not be on the disk.
    fn tear_register(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let under_way: Vec<_> = self
            .pending()
            .filter_map(|due| match due {
                Due::Node { node: to, life: of, job: Job::Persisted(_, record) } if *to == node && *of == life => {
                    Some(record.clone())
                }
                _ => None,
            })
            .collect();
        for record in under_way {
            if self.prng.chance(500) {
                self.nodes[node].record = record;
            }
        }
    }

    pub(crate) fn continue_core(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].stopped) {
            return;
        }
        for job in std::mem::take(&mut self.nodes[node].backlog) {
            self.work(node, job);
        }
    }

    pub(crate) fn watchdog(&mut self, node: usize, boot: u64) {
        let machine = &self.nodes[node];
        if !machine.up || machine.boots != boot {
            return;
        }
        if self.now < machine.watchdog_at {
            let delay = machine.watchdog_at - self.now;
            return self.put(delay, Due::Watchdog { node, boot });
        }
        self.note(node, "the watchdog resets the machine".into());
        self.count("watchdog resets");
        self.power_off(node);
        let boot_time = self.prng.within(3 * SEC, 12 * SEC);
        self.put(boot_time, Due::PowerOn(node));
    }

    /// Every fault ends.
    pub(crate) fn mend_all(&mut self) {
        self.chaos = false;
        self.mend();
        self.witness_back();
        self.witness_rtt = 20 * MS;
        for node in 0..2 {
            self.nodes[node].kernel_slow_until = 0;
            self.continue_core(node);
            self.put(SEC, Due::PowerOn(node));
        }
    }

    pub(crate) fn mend(&mut self) {
        self.net.cut = [false; 2];
        self.net.loss = 0;
        self.net.double = 0;
        self.net.jitter = MS;
    }

    pub(crate) fn witness_back(&mut self) {
        self.witness_up = true;
        self.reach = [true; 2];
    }
}
