//! Real daemons, real files, a pulled cable and `kill -9`: no acknowledged write is ever lost.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use dyad_counter::{BLOCK, SLOTS, STRIDE, Slot, decode, encode, survey};
use dyad_lab::cores::Cores;
use dyad_lab::device::Device;
use dyad_lab::namespaces::CABLES;

/// Two pairs at once would make each other's deadlines a matter of luck.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn program() -> PathBuf {
    let artifacts = dyad_rig::artifacts::Artifacts::beside_this_program().unwrap();
    let program = artifacts.programs().join("dyad-core");
    assert!(program.exists(), "{} is missing; run `cargo build --release --workspace` first", program.display());
    program
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dyad-lab-{name}-{}", std::process::id()))
}

/// The ring of the counting guest, at the beginning of a volume.
struct Ring {
    device: Device,
    counter: u64,
}

impl Ring {
    fn place(counter: u64) -> u64 {
        counter % SLOTS * STRIDE
    }

    /// Counts `more` further, each counter flushed before the next.
    fn count(&mut self, more: u64) {
        for _ in 0..more {
            let next = self.counter + 1;
            self.device.write(Self::place(next), &encode(next, 1)).unwrap();
            self.device.flush().unwrap();
            self.counter = next;
        }
    }

    /// Every slot holds what a flushed write put there.
    fn check(&mut self) {
        let mut block = [0; BLOCK];
        let slots: Vec<Slot> = (0..SLOTS)
            .map(|slot| {
                self.device.read(slot * STRIDE, &mut block).unwrap();
                decode(&block)
            })
            .collect();
        let found = survey(&slots);
        assert!(found.faults.is_empty(), "{:?}", found.faults);
        assert_eq!(found.newest, self.counter);
    }
}

fn ring(cores: &Cores) -> Ring {
    let socket = cores.volume("ring", 8).unwrap();
    Ring { device: Device::connect(&socket).unwrap(), counter: 0 }
}

#[test]
fn killed_daemons_lose_nothing_that_was_acknowledged() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (program(), folder("kill"));
    let mut cores = Cores::pair(&program, &folder).unwrap();
    let mut ring = ring(&cores);
    ring.count(100);

    // The writer's own daemon dies in the middle of a write; the next one finds the write in the in-flight record.
    let next = ring.counter + 1;
    ring.device.begin_write(Ring::place(next), &encode(next, 1)).unwrap();
    cores.kill(0);
    cores.start(&program, 0).unwrap();
    ring.device.reconnect().unwrap();
    ring.device.finish().unwrap();
    ring.counter = next;
    ring.count(50);
    ring.check();

    // The peer's daemon dies and comes back.
    cores.kill(1);
    cores.start(&program, 1).unwrap();
    ring.count(50);
    ring.check();
    cores.wait_in_sync().unwrap();
    drop(cores);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn one_pulled_cable_is_an_alarm_and_nothing_else() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (program, folder) = (program(), folder("cable"));
    let cores = Cores::pair(&program, &folder).unwrap();
    let mut ring = ring(&cores);
    ring.count(20);
    let epoch = cores.status(0).unwrap().quorum.unwrap().epoch;
    for cable in CABLES {
        cores.spaces.set_cable(cable, false).unwrap();
        let down = |status: &dyad_control::Status| status.links.iter().any(|link| !link.up);
        cores.wait("the pulled cable to be seen", 0, Duration::from_secs(30), down).unwrap();
        ring.count(20);
        cores.spaces.set_cable(cable, true).unwrap();
        let up = |status: &dyad_control::Status| status.links.iter().all(|link| link.up);
        cores.wait("the plugged cable to be seen", 0, Duration::from_secs(60), up).unwrap();
    }
    let quorum = cores.status(0).unwrap().quorum.unwrap();
    assert_eq!((quorum.epoch, quorum.members.len()), (epoch, 2));
    ring.check();
    drop(cores);
    std::fs::remove_dir_all(folder).unwrap();
}
