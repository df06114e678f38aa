//! Which repetitions of a message are logged: a log on a disk of a few gigabytes must not fill with one sentence.

use std::time::{Duration, Instant};

/// Interval at which a message that stays the same is logged again.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The newest message of one kind.
#[derive(Debug, Default)]
pub struct Repetition {
    logged: Option<(String, Instant)>,
}

impl Repetition {
    /// Whether to log this message now: it differs from the one logged last, or that was a minute ago.
    pub fn is_due(&mut self, text: &str, now: Instant) -> bool {
        let known = self.logged.as_ref();
        let due = known.is_none_or(|(logged, at)| logged != text || now.duration_since(*at) >= REPEAT_INTERVAL);
        if due {
            self.logged = Some((text.to_owned(), now));
        }
        due
    }

    /// What the message reported is over: the next message is logged.
    pub fn ended(&mut self) {
        self.logged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_logged_at_each_change_and_once_a_minute() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut repetition = Repetition::default();
        assert!(repetition.is_due("a", after(0)));
        assert!(!repetition.is_due("a", after(59)));
        assert!(repetition.is_due("a", after(60)));
        assert!(repetition.is_due("b", after(61)));
        assert!(repetition.is_due("a", after(62)));
        repetition.ended();
        assert!(repetition.is_due("a", after(63)));
    }
}
