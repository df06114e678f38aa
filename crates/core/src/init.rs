//! Client of the socket of `dyad-init`, which sets the period of the watchdog. On a development host without init each
//! request fails.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the answer of `dyad-init`.
const INIT_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Reasons for which init did not carry out a request. Each text is one clause.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Nothing listens on the socket.
    #[error("init does not answer: {error}")]
    Connect { socket: PathBuf, error: io::Error },
    /// The connection failed, or no answer came within 2 s.
    #[error("{error}")]
    Connection { socket: PathBuf, error: io::Error },
    /// init refuses, with this reason.
    #[error("{reason}")]
    Refused { reason: String },
    /// The answer has no number.
    #[error("init answered without a number")]
    NoNumber,
}

/// Sends one line and returns the text after `ok` in the line of the answer.
fn ask(run: &Path, line: &str) -> Result<String, InitError> {
    let socket = run.join("init.sock");
    let failed = |error| InitError::Connection { socket: socket.clone(), error };
    let mut stream =
        UnixStream::connect(&socket).map_err(|error| InitError::Connect { socket: socket.clone(), error })?;
    stream.set_read_timeout(Some(INIT_ANSWER_TIMEOUT)).map_err(failed)?;
    writeln!(stream, "{line}").map_err(failed)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(failed)?;
    let reply = reply.trim();
    match reply.split_once(' ').unwrap_or((reply, "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        _ => Err(InitError::Refused { reason: reply.to_owned() }),
    }
}

/// Sets the watchdog's period in seconds; returns the period that the device granted.
///
/// # Errors
/// init does not answer within 2 s, or the device refuses.
pub fn watchdog_period(run: &Path, seconds: u64) -> Result<u64, InitError> {
    ask(run, &format!("watchdog {seconds}"))?.parse().map_err(|_| InitError::NoNumber)
}

#[cfg(test)]
pub mod testing {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    /// Answers one request on the socket of `dyad-init` in `run`; returns the line of the request.
    pub fn answer_once(run: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(run.join("init.sock")).expect("the folder is new");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the socket is open");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a request arrives");
            writeln!(stream, "{answer}").expect("the client waits for the answer");
            line.trim().to_owned()
        })
    }
}
