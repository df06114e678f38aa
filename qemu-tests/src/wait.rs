//! Waits for conditions, with a deadline; there is no function that waits for time to pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of one check of a condition.
pub enum Poll<T> {
    /// The condition holds; the value that the wait returns.
    Ready(T),
    /// The condition does not hold yet; the observed state, for the error at the deadline.
    NotYet(String),
}

/// Calls `check` every 100 ms until the condition holds; returns its value. `what` names the condition.
///
/// # Errors
/// The deadline passed: the error names `what` and the last result. An error of the check itself ends the
/// wait at once.
pub fn until<T>(what: &str, deadline: Duration, check: impl FnMut() -> Result<Poll<T>>) -> Result<T> {
    until_every(POLL_INTERVAL, what, deadline, check)
}

/// Like [`until`] with another interval, for checks that load the node that they ask.
///
/// # Errors
/// As [`until`].
pub fn until_every<T>(
    interval: Duration,
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> Result<Poll<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match check()? {
            Poll::Ready(value) => return Ok(value),
            Poll::NotYet(seen) => seen,
        };
        if start.elapsed() > deadline {
            bail!("waited {} s for {what}; last seen: {seen}", deadline.as_secs());
        }
        thread::sleep(interval);
    }
}

/// Like [`until`] for checks that may fail while a machine is away: an error counts as "not yet".
///
/// # Errors
/// The deadline passed.
pub fn until_ok<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    until(what, deadline, || {
        Ok(match check() {
            Ok(value) => Poll::Ready(value),
            Err(error) => Poll::NotYet(format!("{error:#}")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_condition_and_the_last_observed_state() {
        let error = until::<()>("the moon", Duration::ZERO, || Ok(Poll::NotYet("clouds".into()))).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
        assert!(error.to_string().contains("clouds"), "{error}");
    }

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let seen = until_ok("the third look", Duration::from_secs(5), || {
            looks += 1;
            anyhow::ensure!(looks == 3, "look {looks}");
            Ok(looks)
        })
        .unwrap();
        assert_eq!(seen, 3);
    }
}
