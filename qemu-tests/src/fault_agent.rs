//! Commands to `dyad-fault-agent`, the program at the serial line of a node that runs the image `fault-agent.img`. The
//! commands are in `crates/fault-agent/src/main.rs`.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::serial::SerialLine;

/// Text that the fault agent prints when it begins to read commands.
pub const READY: &str = "fault-agent ready";
/// The fault agent answers at once; the limit allows for an emulated serial line.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// Sends a command, waits until it is carried out, and returns the time at which it was sent.
///
/// # Errors
/// The fault agent does not confirm the command.
pub fn run_command(serial: &SerialLine, command: &str) -> Result<Instant> {
    let position = serial.position();
    let sent = Instant::now();
    serial.send(&format!("{command}\r"))?;
    serial.wait_for_text(&format!("fault-agent did {command}"), position, COMMAND_DEADLINE)?;
    Ok(sent)
}
