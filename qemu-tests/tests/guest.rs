//! Tests of the counting guests themselves, on a plain disk without a pair: all other machine tests rely on what they report.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dyad_rig::accelerator::Accelerator;
use dyad_rig::artifacts::{Artifacts, CountingGuest};
use dyad_rig::child::{Program, RunningProgram};
use dyad_rig::guest::GuestLine;
use dyad_rig::pair::Sockets;
use dyad_rig::serial::SerialLine;

/// Ring of the counting guests (`dyad-counter`): offset of its first byte, bytes from slot to slot, number of slots.
const RING: (u64, u64, u64) = (24 << 20, 64 << 10, 64);
const GUEST_DEADLINE: Duration = Duration::from_secs(120);

/// A QEMU machine that boots the guest from a copy of its disk.
struct Machine {
    disk: PathBuf,
    sockets: Sockets,
    line: SerialLine,
    power: Option<RunningProgram>,
}

impl Machine {
    fn new(name: &str, guest: CountingGuest) -> Self {
        let artifacts = Artifacts::beside_this_program().unwrap();
        let sockets = Sockets::new(name).unwrap();
        let disk = sockets.path().join("disk.img");
        fs::copy(artifacts.guest(guest), &disk).expect("the guest's disk; `cargo xtask guest` builds it");
        let line = SerialLine::new(&sockets.path().join("log"), &sockets.path().join("relay")).unwrap();
        Self { disk, sockets, line, power: None }
    }

    fn power_on(&mut self) {
        let socket = self.path("tty");
        let mut qemu = Program::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35", "-m", "128", "-nodefaults", "-display", "none"]);
        qemu.args(Accelerator::Tcg.arguments());
        qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio", self.disk.display()));
        qemu.arg("-serial").arg(format!("unix:{},server=on,wait=off", socket.display()));
        self.power = Some(qemu.start(&self.path("qemu.log")).unwrap());
        self.line.connect(&socket).unwrap();
    }

    /// Cuts the power and returns the newest acknowledged counter.
    fn power_cut(&mut self) -> u64 {
        self.power = None;
        self.newest(|said| if let GuestLine::Ack { counter, .. } = said { Some(counter) } else { None }).unwrap()
    }

    fn wait(&self, text: &str, since: usize) {
        self.line.wait_for_text(text, since, GUEST_DEADLINE).unwrap();
    }

    fn newest<T>(&self, pick: impl Fn(GuestLine) -> Option<T>) -> Option<T> {
        let log = fs::read_to_string(self.path("log")).unwrap();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(GuestLine::parse).filter_map(pick).next_back()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.sockets.path()).join(name)
    }
}

#[test]
fn the_guest_with_linux_resumes_from_its_newest_acknowledged_counter() {
    resumes_from_its_newest_acknowledged_counter(Machine::new("linux-goes-on", CountingGuest::Linux));
}

#[test]
fn the_bare_guest_resumes_from_its_newest_acknowledged_counter() {
    resumes_from_its_newest_acknowledged_counter(Machine::new("bare-goes-on", CountingGuest::Bare));
}

#[test]
fn the_guest_with_linux_reports_one_lost_write() {
    reports_one_lost_write(Machine::new("linux-lost-write", CountingGuest::Linux));
}

#[test]
fn the_bare_guest_reports_one_lost_write() {
    reports_one_lost_write(Machine::new("bare-lost-write", CountingGuest::Bare));
}

fn resumes_from_its_newest_acknowledged_counter(mut machine: Machine) {
    machine.power_on();
    machine.wait("resume 0", 0);
    machine.wait("\nack 70 ", 0);
    let acked = machine.power_cut();
    let since = machine.line.position();
    machine.power_on();
    machine.wait("resume ", since);
    machine.wait("\nack ", since);
    let resumed = machine.newest(|said| if let GuestLine::Resume(counter) = said { Some(counter) } else { None });
    assert!(resumed.unwrap() >= acked, "resumed {resumed:?} after {acked}");
    let error = machine.newest(|said| if let GuestLine::Error(line) = said { Some(line) } else { None });
    assert_eq!(error, None);
}

fn reports_one_lost_write(mut machine: Machine) {
    machine.power_on();
    machine.wait("\nack 80 ", 0);
    let acked = machine.power_cut();
    // The planted fault: an old block replaces a newer, flushed block.
    let (first, stride, slots) = RING;
    let slot = |counter: u64| first + counter % slots * stride;
    let disk = File::options().read(true).write(true).open(&machine.disk).unwrap();
    let mut block = [0; 4096];
    disk.read_exact_at(&mut block, slot(acked - 20)).unwrap();
    disk.write_all_at(&block, slot(acked - 10)).unwrap();
    let since = machine.line.position();
    machine.power_on();
    machine.wait("\nfault slot ", since);
}
