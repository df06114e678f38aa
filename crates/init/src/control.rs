//! The socket through which services ask init for something: one line each way.
//!
//! ```text
//! poweroff | reboot            → ok
//! restart SERVICE              → ok
//! watchdog SECONDS             → ok GRANTED-SECONDS
//! status                       → ok NAME=PID|waiting …
//! anything else                → error SENTENCE
//! ```

use anyhow::Context;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The socket on which init listens.
pub const SOCKET: &str = "/run/dyad/init.sock";

/// Longest request, in bytes.
const LONGEST: u64 = 256;
/// Longest wait for one client. Only root can connect, and init does nothing else during the wait.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(200);

/// How the machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    Poweroff,
    Reboot,
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Down(PowerAction),
    /// End a service and start it again.
    Restart(String),
    /// Change the period of the watchdog.
    Watchdog(Duration),
    /// Asks which services run.
    Status,
}

/// The listening socket.
pub struct Control {
    listener: UnixListener,
}

impl Control {
    /// Listens at `path`, for root only.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("{} cannot be made", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Takes one connection and answers its request by `handle`. Errors concern that client alone.
    pub fn serve(&self, handle: impl FnOnce(Request) -> Result<String, String>) -> io::Result<()> {
        let (mut stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let reply = match parse(&read_line(&stream)?).and_then(handle) {
            Ok(text) => format!("ok {text}"),
            Err(sentence) => format!("error {sentence}"),
        };
        stream.write_all(format!("{}\n", reply.trim_end()).as_bytes())
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    Ok(line)
}

fn parse(line: &str) -> Result<Request, String> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["poweroff"] => Ok(Request::Down(PowerAction::Poweroff)),
        ["reboot"] => Ok(Request::Down(PowerAction::Reboot)),
        ["restart", service] => Ok(Request::Restart(service.into())),
        ["watchdog", seconds] => match seconds.parse() {
            Ok(seconds @ 1..=600) => Ok(Request::Watchdog(Duration::from_secs(seconds))),
            _ => Err("the period of the watchdog is 1 to 600 seconds".into()),
        },
        ["status"] => Ok(Request::Status),
        _ => Err("ask for poweroff, reboot, restart SERVICE, watchdog SECONDS or status".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_words() {
        assert_eq!(parse("reboot\n"), Ok(Request::Down(PowerAction::Reboot)));
        assert_eq!(parse(" restart dyad-node \n"), Ok(Request::Restart("dyad-node".into())));
        assert_eq!(parse("watchdog 3"), Ok(Request::Watchdog(Duration::from_secs(3))));
        for line in ["", "watchdog 0", "watchdog x", "restart", "reboot now", "POWEROFF"] {
            assert!(parse(line).is_err(), "{line} was understood");
        }
    }

    #[test]
    fn a_client_is_answered() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("init.sock");
        let control = Control::open(&path).expect("listening");
        for (line, reply) in [("status\n", "ok fine\n"), ("dance\n", "error ask for")] {
            let mut client = UnixStream::connect(&path).expect("connected");
            client.write_all(line.as_bytes()).expect("asked");
            control.serve(|_| Ok("fine".into())).expect("served");
            let mut text = String::new();
            client.read_to_string(&mut text).expect("answered");
            assert!(text.starts_with(reply), "{text}");
        }
    }
}
