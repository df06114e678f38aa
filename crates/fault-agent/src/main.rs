//! `dyad-fault-agent`: injects failures of processes inside a node of the rig, which the rig cannot do from outside.
//!
//! Test images have it in place of the console; release images do not. It reads commands from its serial line, one per
//! line, and answers each with one line:
//!
//! | command | meaning |
//! | --- | --- |
//! | `kill NAME` | sends SIGKILL to every process with this name |
//! | `stop NAME` | sends SIGSTOP to them |
//! | `cont NAME` | sends SIGCONT to them |
//!
//! It also keeps a virtual machine with one processor that never runs ([`IdleMachine`]).

use std::fs;
use std::io::{self, BufRead as _};

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::process::{Pid, Signal, kill_process};

/// A virtual machine that exists and never runs.
///
/// KVM patches the code that all processors execute when the first machine with a disabled interrupt controller appears and
/// when the last one enables it, which is at each boot of a guest (`apic_sw_disabled` in Linux `arch/x86/kvm/lapic.c`).
/// QEMU's emulation lets another processor of the node execute the breakpoint of the patch too late: "Oops: int3" in
/// `kvm_arch_vcpu_ioctl_run`. While this machine exists, there is always one, and KVM patches nothing.
struct IdleMachine {
    _processor: VcpuFd,
    _machine: VmFd,
}

impl IdleMachine {
    fn create() -> Result<Self, kvm_ioctls::Error> {
        let machine = Kvm::new()?.create_vm()?;
        machine.create_irq_chip()?;
        Ok(Self { _processor: machine.create_vcpu(0)?, _machine: machine })
    }
}

fn main() {
    let idle_machine = IdleMachine::create();
    if let Err(error) = &idle_machine {
        println!("fault-agent has no virtual machine: {error}\r");
    }
    println!("fault-agent ready\r");
    for command in io::stdin().lock().lines() {
        let Ok(command) = command else { break };
        match execute(command.trim()) {
            Ok(count) => println!("fault-agent did {} to {count} processes\r", command.trim()),
            Err(why) => println!("fault-agent cannot: {why}\r"),
        }
    }
}

fn execute(command: &str) -> Result<usize, String> {
    let (word, name) = command.split_once(' ').ok_or("say `kill NAME`, `stop NAME` or `cont NAME`")?;
    let signal = match word {
        "kill" => Signal::KILL,
        "stop" => Signal::STOP,
        "cont" => Signal::CONT,
        other => return Err(format!("there is no command `{other}`")),
    };
    let mut count = 0;
    for pid in processes(name).map_err(|error| error.to_string())? {
        kill_process(pid, signal).map_err(|error| format!("{name}: {error}"))?;
        count += 1;
    }
    if count == 0 { Err(format!("no process is called {name}")) } else { Ok(count) }
}

/// The processes with this name in `comm`, which the kernel cuts to 15 bytes.
fn processes(name: &str) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = number else { continue };
        // A process may end between the two reads.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == &name[..name.len().min(15)] {
            found.push(pid);
        }
    }
    Ok(found)
}
