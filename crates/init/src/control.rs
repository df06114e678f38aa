//! The socket on which services send requests to init: one line as the request, one line as the reply.
//!
//! ```text
//! poweroff | reboot            → ok
//! restart SERVICE              → ok
//! watchdog SECONDS             → ok GRANTED-SECONDS
//! status                       → ok NAME=PID|waiting …
//! any other line               → error SENTENCE
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

/// Maximum length of a request, in bytes.
const MAX_REQUEST_BYTES: u64 = 256;
/// Limit of each read from and each write to a client. Only root can connect, and init does nothing else meanwhile.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(200);

/// The end of a shutdown: power off or reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    Poweroff,
    Reboot,
}

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Shuts the machine down.
    ShutDown(PowerAction),
    /// Ends a service, which is then started again.
    Restart(String),
    /// Changes the period of the watchdog, and replies with the period that the device granted.
    Watchdog(Duration),
    /// Lists the services with the process number of each.
    Status,
}

/// The listening socket of init.
pub struct ControlSocket {
    listener: UnixListener,
}

impl ControlSocket {
    /// Listens at `path` with mode 0600, so that only root can connect.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("{} cannot be made", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Accepts one connection and replies to its request with the result of `handle`. An error means that this client got no
    /// reply; the socket stays usable.
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

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST_BYTES)).read_line(&mut line)?;
    Ok(line)
}

fn parse(line: &str) -> Result<Request, String> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["poweroff"] => Ok(Request::ShutDown(PowerAction::Poweroff)),
        ["reboot"] => Ok(Request::ShutDown(PowerAction::Reboot)),
        ["restart", service] => Ok(Request::Restart(service.into())),
        ["watchdog", seconds] => match seconds.parse() {
            Ok(seconds @ 1..=600) => Ok(Request::Watchdog(Duration::from_secs(seconds))),
            _ => Err("the period of the watchdog is 1 to 600 seconds".into()),
        },
        ["status"] => Ok(Request::Status),
        _ => Err("the requests are poweroff, reboot, restart SERVICE, watchdog SECONDS or status".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_parsed_as_words() {
        assert_eq!(parse("reboot\n"), Ok(Request::ShutDown(PowerAction::Reboot)));
        assert_eq!(parse(" restart dyad-node \n"), Ok(Request::Restart("dyad-node".into())));
        assert_eq!(parse("watchdog 3"), Ok(Request::Watchdog(Duration::from_secs(3))));
        for line in ["", "watchdog 0", "watchdog x", "restart", "reboot now", "POWEROFF"] {
            assert!(parse(line).is_err(), "{line} was understood");
        }
    }

    #[test]
    fn a_client_gets_a_reply_or_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("init.sock");
        let control = ControlSocket::open(&path).expect("listening");
        for (line, reply) in [("status\n", "ok fine\n"), ("dance\n", "error the requests are")] {
            let mut client = UnixStream::connect(&path).expect("connected");
            client.write_all(line.as_bytes()).expect("asked");
            control.serve(|_| Ok("fine".into())).expect("served");
            let mut text = String::new();
            client.read_to_string(&mut text).expect("answered");
            assert!(text.starts_with(reply), "{text}");
        }
    }
}
