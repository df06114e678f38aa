//! `cargo xtask attach a|b`: connects this terminal to the serial line of a node of a running rig.

use std::io::{Read, Write, stdin, stdout};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::host::Host;
use crate::rig;

/// Ctrl-], as in telnet: ends the connection.
const LEAVE_KEY: u8 = 0x1d;

/// Connects this terminal to the serial line of node `a` or `b` until Ctrl-].
pub fn attach(host: &Host, node: &str) -> Result<()> {
    let letter = node.to_lowercase();
    if !["a", "b"].contains(&letter.as_str()) {
        bail!("There is no node {node:?}: say a or b.");
    }
    let socket = rig::sockets_link(host).join(format!("serial-{letter}"));
    let mut line = UnixStream::connect(&socket)
        .with_context(|| format!("No rig runs here: nothing listens at {}.", socket.display()))?;
    println!("Serial line of node {}; Ctrl-] leaves.\r", letter.to_uppercase());
    let raw = RawMode::enter()?;
    let mut output = line.try_clone()?;
    let reader = thread::spawn(move || copy(&mut output, &mut stdout()));
    let mut key = [0];
    while stdin().read(&mut key)? > 0 && key[0] != LEAVE_KEY {
        line.write_all(&key)?;
        if reader.is_finished() {
            break;
        }
    }
    drop(raw);
    println!();
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut bytes = [0; 1024];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
        && to.write_all(&bytes[..count]).is_ok()
    {
        // Output that a full terminal does not take now is shown at the next flush.
        let _ = to.flush();
    }
}

/// Raw mode of the terminal; dropping this value restores the former mode. `None` = standard input is no terminal.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Result<Self> {
        let terminal = stdin();
        // Standard input is no terminal, such as a pipe: there is no mode to change.
        let Ok(before) = tcgetattr(terminal.as_fd()) else {
            return Ok(Self(None));
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal.as_fd(), SetArg::TCSANOW, &raw).context("The terminal has no raw mode.")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The program ends: an error here has no reader.
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
