//! A node's serial line: recorded from power-on, kept as the screen of a terminal, and relayed to clients of a unix
//! socket.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::terminal::Terminal;
use crate::wait::{self, Poll};

/// Longest time until QEMU has created the socket of the line, on a loaded machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Timeout of a write to an attached client. A client that is slower is dropped, so that it cannot stop the recording.
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_millis(500);

/// The rig's end of one serial line. It stays usable over power cuts of the node. Clones share it.
#[derive(Debug, Clone)]
pub struct SerialLine {
    shared: Arc<Mutex<Shared>>,
    log: PathBuf,
}

#[derive(Debug)]
struct Shared {
    terminal: Terminal,
    text: String,
    log: File,
    node: Option<UnixStream>,
    /// Number of power-ons. The thread of an older connection compares it, so that its end does not close the newer one.
    power_ons: u64,
    attached: Vec<UnixStream>,
}

impl SerialLine {
    /// A line without a node yet: it will record to `log`, and clients attach at the unix socket `relay`.
    ///
    /// # Errors
    /// The log or the socket cannot be made.
    pub fn new(log: &Path, relay: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("Cannot open {}.", log.display()))?;
        let listener = UnixListener::bind(relay).with_context(|| format!("Cannot listen at {}.", relay.display()))?;
        let line = Self {
            shared: Arc::new(Mutex::new(Shared {
                terminal: Terminal::default(),
                text: String::new(),
                log: file,
                node: None,
                power_ons: 0,
                attached: Vec::new(),
            })),
            log: log.to_owned(),
        };
        let relay = line.clone();
        thread::spawn(move || relay.serve(&listener));
        Ok(line)
    }

    /// Connects to the node's end at `socket`, as soon as it exists, and records until the node loses power.
    ///
    /// # Errors
    /// The socket did not appear.
    pub fn connect(&self, socket: &Path) -> Result<()> {
        let stream = wait::until_ok("the node's serial socket", CONNECT_DEADLINE, || Ok(UnixStream::connect(socket)?))?;
        let power_ons = {
            let mut shared = self.lock();
            shared.node = Some(stream.try_clone()?);
            shared.power_ons += 1;
            shared.power_ons
        };
        let line = self.clone();
        thread::spawn(move || line.record(stream, power_ons));
        Ok(())
    }

    /// Sends `keys` to the node.
    ///
    /// # Errors
    /// The line is not connected: the node is off.
    pub fn send(&self, keys: &str) -> Result<()> {
        let mut shared = self.lock();
        let node = shared.node.as_mut().context("The serial line is not connected.")?;
        node.write_all(keys.as_bytes()).context("The serial line does not take keys.")
    }

    /// The text that an 80×24 terminal on the line shows now.
    pub fn screen(&self) -> String {
        self.lock().terminal.screen()
    }

    /// Length of the recorded text in bytes: a position for [`SerialLine::text_since`] and [`SerialLine::wait_for_text`].
    pub fn position(&self) -> usize {
        self.lock().text.len()
    }

    /// The text that the node sent after position `since`, control sequences included.
    pub fn text_since(&self, since: usize) -> String {
        let shared = self.lock();
        shared.text[since.min(shared.text.len())..].to_owned()
    }

    /// Waits until the terminal shows `text`.
    ///
    /// # Errors
    /// The terminal did not show it within `deadline`; the error holds the screen.
    pub fn wait_for_screen(&self, text: &str, deadline: Duration) -> Result<String> {
        wait::until(&format!("{text:?} on the serial screen"), deadline, || {
            let screen = self.screen();
            Ok(if screen.contains(text) { Poll::Ready(screen) } else { Poll::NotYet(format!("\n{screen}")) })
        })
    }

    /// Waits until the node has sent `text` after position `since`. The screen may have been overwritten since then.
    ///
    /// # Errors
    /// The node did not send it within `deadline`; the error holds the last lines.
    pub fn wait_for_text(&self, text: &str, since: usize, deadline: Duration) -> Result<()> {
        wait::until(&format!("{text:?} on the serial line"), deadline, || {
            let shared = self.lock();
            let seen = &shared.text[since.min(shared.text.len())..];
            if seen.contains(text) {
                return Ok(Poll::Ready(()));
            }
            let tail: Vec<_> = seen.lines().rev().take(12).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            Ok(Poll::NotYet(format!("\n{}\n(all of it: {})", tail.join("\n"), self.log.display())))
        })
    }

    /// Copies the node's output into the log, the terminal and the attached clients.
    fn record(&self, mut node: UnixStream, power_ons: u64) {
        let mut bytes = [0; 4096];
        while let Ok(count) = node.read(&mut bytes)
            && count > 0
        {
            let bytes = &bytes[..count];
            let mut shared = self.lock();
            let answer = shared.terminal.process(bytes);
            shared.text.push_str(&String::from_utf8_lossy(bytes));
            // A full disk under the log must not stop the test from watching the line.
            let _ = shared.log.write_all(bytes);
            if !answer.is_empty() && shared.attached.is_empty() {
                // An attached terminal answers a cursor position request itself; a second answer would arrive as keys.
                let _ = node.write_all(&answer);
            }
            shared.attached.retain_mut(|client| client.write_all(bytes).is_ok());
        }
        let mut shared = self.lock();
        if shared.power_ons == power_ons {
            shared.node = None;
        }
    }

    /// Serves the relay socket: each client receives the node's output, and its input is sent to the node.
    fn serve(&self, listener: &UnixListener) {
        for mut client in listener.incoming().flatten() {
            let Ok(output) = client.try_clone() else {
                continue;
            };
            if output.set_write_timeout(Some(CLIENT_STALL_TIMEOUT)).is_err() {
                continue;
            }
            self.lock().attached.push(output);
            let line = self.clone();
            thread::spawn(move || {
                let mut keys = [0; 256];
                while let Ok(count) = client.read(&mut keys)
                    && count > 0
                {
                    // Keys for a node that is off are dropped.
                    let _ = line.send(&String::from_utf8_lossy(&keys[..count]));
                }
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_recorded_shown_and_shared() {
        let folder = std::env::temp_dir().join(format!("dyad-serial-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("node");
        let listener = UnixListener::bind(&socket).unwrap();
        let line = SerialLine::new(&folder.join("log"), &folder.join("relay")).unwrap();
        line.connect(&socket).unwrap();
        let (mut node, _) = listener.accept().unwrap();

        node.write_all(b"\x1b[2J\x1b[Hhello \x1b[1mthere\x1b[0m").unwrap();
        line.wait_for_screen("hello there", Duration::from_secs(5)).unwrap();
        line.send("yes\r").unwrap();
        let mut keys = [0; 4];
        node.read_exact(&mut keys).unwrap();
        assert_eq!(&keys, b"yes\r");

        let mut client = UnixStream::connect(folder.join("relay")).unwrap();
        client.write_all(b"q").unwrap();
        node.read_exact(&mut keys[..1]).unwrap();
        assert_eq!(keys[0], b'q');
        let since = line.position();
        node.write_all(b"bye").unwrap();
        line.wait_for_text("bye", since, Duration::from_secs(5)).unwrap();
        assert!(std::fs::read_to_string(folder.join("log")).unwrap().ends_with("bye"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
