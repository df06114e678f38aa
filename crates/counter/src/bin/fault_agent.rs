//! `dyad-fault-agent`: does inside a node of the rig what no owner could do from outside.
//!
//! Test images carry it in place of the console; the image that ships does not. It reads orders from its serial
//! line, one each line, and answers each with one line:
//!
//! | order | meaning |
//! | --- | --- |
//! | `kill NAME` | `kill -9` of every process of this name |
//! | `stop NAME` | they stop in their tracks |
//! | `cont NAME` | they go on |

use std::fs;
use std::io::{self, BufRead as _};

use rustix::process::{Pid, Signal, kill_process};

fn main() {
    println!("fault-agentready\r");
    for order in io::stdin().lock().lines() {
        let Ok(order) = order else { break };
        match execute(order.trim()) {
            Ok(count) => println!("fault-agentdid {} to {count} processes\r", order.trim()),
            Err(why) => println!("fault_agent cannot: {why}\r"),
        }
    }
}

fn execute(order: &str) -> Result<usize, String> {
    let (word, name) = order.split_once(' ').ok_or("say `kill NAME`, `stop NAME` or `cont NAME`")?;
    let signal = match word {
        "kill" => Signal::KILL,
        "stop" => Signal::STOP,
        "cont" => Signal::CONT,
        other => return Err(format!("there is no order `{other}`")),
    };
    let mut count = 0;
    for pid in processes(name).map_err(|error| error.to_string())? {
        kill_process(pid, signal).map_err(|error| format!("{name}: {error}"))?;
        count += 1;
    }
    if count == 0 { Err(format!("no process is called {name}")) } else { Ok(count) }
}

/// Processes by the kernel's name for them, of which it keeps fifteen letters.
fn processes(name: &str) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = number else { continue };
        // A process may end while it is looked at.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == &name[..name.len().min(15)] {
            found.push(pid);
        }
    }
    Ok(found)
}
