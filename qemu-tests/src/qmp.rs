//! The power switch and the cables of a node: QEMU's machine protocol on a unix socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::wait;

/// Longest time until QEMU has made its socket on a loaded machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// QEMU answers every command used here at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// One connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
    /// Events that QEMU sent.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to the socket at `path`, as soon as it exists, and leaves the greeting phase.
    ///
    /// # Errors
    /// QEMU did not answer in time or not in its protocol.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = wait::until_ok("QEMU's control socket", CONNECT_DEADLINE, || Ok(UnixStream::connect(path)?))?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let mut qmp = Self { lines: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greeted with {greeting}.");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its result.
    ///
    /// # Errors
    /// QEMU refused the command or went away.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.lines.get_mut(), "{request}").with_context(|| format!("QEMU took no `{command}`."))?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused `{command}`: {error}.");
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            self.events.push(answer);
        }
    }

    /// The resets of the machine so far, each with its cause: watchdog, software or button.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn resets(&mut self) -> Result<String> {
        // Events wait in the socket until an answer is read.
        self.execute("query-status", json!({}))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let told = |event: &Value| {
            let name = event["event"].as_str().filter(|name| ["RESET", "WATCHDOG", "GUEST_PANICKED"].contains(name))?;
            let at = event["timestamp"]["seconds"].as_f64()? + event["timestamp"]["microseconds"].as_f64()? / 1e6;
            Some(format!("{name} {:.1} s ago {}", now - at, event["data"]))
        };
        Ok(self.events.iter().filter_map(told).collect::<Vec<_>>().join(", "))
    }

    /// Pulls (`up` = false) or plugs the cable of the network card with this QEMU id.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn set_link(&mut self, card: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({"name": card, "up": up}))?;
        Ok(())
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn reset(&mut self) -> Result<()> {
        self.execute("system_reset", json!({}))?;
        Ok(())
    }

    /// Writes what the screen shows to `file` as PNG.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.execute("screendump", json!({"filename": file, "format": "png"}))?;
        Ok(())
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket.");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}."))
    }
}
