//! Asks init for what only PID 1 can do. On a laptop there is no init, and nothing of this happens.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One line each way; the text after `ok`, or the reason.
fn ask(run: &Path, line: &str) -> Result<String, String> {
    let path = run.join("init.sock");
    let mut stream = UnixStream::connect(&path).map_err(|e| format!("init does not answer: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(|e| e.to_string())?;
    writeln!(stream, "{line}").map_err(|e| e.to_string())?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(|e| e.to_string())?;
    match reply.trim().split_once(' ') {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        _ if reply.trim() == "ok" => Ok(String::new()),
        _ => Err(reply.trim().to_owned()),
    }
}

/// Sets the watchdog's period in seconds; returns the period that the device granted.
///
/// # Errors
/// init does not answer within 2 s, or the device refuses. The text is one clause.
pub fn watchdog_period(run: &Path, seconds: u64) -> Result<u64, String> {
    ask(run, &format!("watchdog {seconds}"))?.parse().map_err(|_| "init answered without a number".into())
}
