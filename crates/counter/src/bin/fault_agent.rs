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

use std::fs;
use std::io::{self, BufRead as _};

use rustix::process::{Pid, Signal, kill_process};

fn main() {
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
