//! Orders for `dyad-fault-agent`, which listens at the serial line of a node with the fault_agent image.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::serial::SerialLine;

/// What it says when it listens.
pub const READY: &str = "fault-agent ready";
/// It answers at once, on an emulated serial line.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// Gives an order and waits until it is carried out; returns when it was given.
///
/// # Errors
/// It does not say that it did.
pub fn order(serial: &SerialLine, order: &str) -> Result<Instant> {
    let position = serial.position();
    let given = Instant::now();
    serial.send(&format!("{order}\r"))?;
    serial.wait_for_text(&format!("fault-agent did {order}"), position, ORDER_DEADLINE)?;
    Ok(given)
}
