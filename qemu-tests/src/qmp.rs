//! A client of QEMU's control protocol (QMP) on a unix socket: reset, network links, screen.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::wait;

/// Longest time until QEMU has created its socket on a loaded machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Timeout of an answer. QEMU answers the commands used here at once; the rest is for a loaded machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to the control socket of one QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
    /// Events that QEMU sent before an answer, oldest first.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to the socket at `path`, as soon as it exists, and completes the handshake of the protocol.
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

    /// The RESET, WATCHDOG and GUEST_PANICKED events since QEMU started, as text: each with its age in seconds and
    /// QEMU's data about it, which name the cause of a reset.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn reset_events(&mut self) -> Result<String> {
        // Events are read only together with an answer: this command fetches those that wait in the socket.
        self.execute("query-status", json!({}))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let told = |event: &Value| {
            let name = event["event"].as_str().filter(|name| ["RESET", "WATCHDOG", "GUEST_PANICKED"].contains(name))?;
            let at = event["timestamp"]["seconds"].as_f64()? + event["timestamp"]["microseconds"].as_f64()? / 1e6;
            Some(format!("{name} {:.1} s ago {}", now - at, event["data"]))
        };
        Ok(self.events.iter().filter_map(told).collect::<Vec<_>>().join(", "))
    }

    /// Sets the link of the network card with this QEMU id up or down.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn set_link(&mut self, card: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({"name": card, "up": up}))?;
        Ok(())
    }

    /// Makes the disk with this name answer no read and no write after the next one, by a limit of one byte per second, or
    /// ends this limit. Flushes are answered.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn set_disk_hangs(&mut self, disk: &str, hangs: bool) -> Result<()> {
        let bytes_per_second = u64::from(hangs);
        let limits = json!({
            "device": disk, "bps": bytes_per_second, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
        });
        self.execute("block_set_io_throttle", limits)?;
        Ok(())
    }

    /// Resets the machine, as its reset button does.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn reset(&mut self) -> Result<()> {
        self.execute("system_reset", json!({}))?;
        Ok(())
    }

    /// Writes the content of the screen to `file` as PNG.
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
