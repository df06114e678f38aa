//! Who is logged in. Pure: time and tokens are arguments.

use std::collections::HashMap;

use dyad_api::Session;
use sha2::{Digest, Sha256};

/// Most sessions at once; the one that was idle longest gives way.
const SESSIONS: usize = 64;
/// Seconds without a request after which a session ends.
const IDLE_S: u64 = 12 * 3600;
/// Wrong passwords within [`WINDOW_S`] after which none is checked any more.
const FAILURES: usize = 10;
/// Seconds a wrong password is remembered.
const WINDOW_S: u64 = 60;

/// The sessions of this node, in memory only: a restart logs everybody out.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: HashMap<[u8; 32], Open>,
    failures: Vec<u64>,
}

#[derive(Debug)]
struct Open {
    user: String,
    used_s: u64,
}

impl Sessions {
    /// Begins a session. `token` is secret and random; only its hash is kept.
    pub(crate) fn begin(&mut self, token: &str, user: &str, now_s: u64) {
        if self.open.len() >= SESSIONS
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used_s).map(|(hash, _)| *hash)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(hash(token), Open { user: user.to_owned(), used_s: now_s });
    }

    /// The session of this token, which counts as used now.
    pub(crate) fn check(&mut self, token: &str, now_s: u64) -> Option<Session> {
        self.open.retain(|_, open| now_s.saturating_sub(open.used_s) < IDLE_S);
        let open = self.open.get_mut(&hash(token))?;
        open.used_s = now_s;
        Some(Session { user: open.user.clone() })
    }

    /// Ends a session.
    pub(crate) fn end(&mut self, token: &str) {
        self.open.remove(&hash(token));
    }

    /// Whether a password may be tried now.
    pub(crate) fn may_try(&mut self, now_s: u64) -> bool {
        self.failures.retain(|at| now_s.saturating_sub(*at) < WINDOW_S);
        self.failures.len() < FAILURES
    }

    /// A wrong password was given.
    pub(crate) fn failed(&mut self, now_s: u64) {
        self.failures.push(now_s);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_until_it_is_idle_or_ended() {
        let mut sessions = Sessions::default();
        sessions.begin("a", "admin", 0);
        assert_eq!(sessions.check("b", 1), None);
        assert_eq!(sessions.check("a", IDLE_S - 1), Some(Session { user: "admin".into() }));
        assert!(sessions.check("a", 2 * IDLE_S - 2).is_some(), "use keeps it alive");
        assert_eq!(sessions.check("a", 4 * IDLE_S), None);
        sessions.begin("a", "admin", 0);
        sessions.end("a");
        assert_eq!(sessions.check("a", 1), None);
    }

    #[test]
    fn the_oldest_session_gives_way() {
        let mut sessions = Sessions::default();
        for i in 0..=SESSIONS {
            sessions.begin(&i.to_string(), "admin", i as u64);
        }
        assert_eq!(sessions.check("0", 100), None);
        assert!(sessions.check("1", 100).is_some());
    }

    #[test]
    fn wrong_passwords_are_limited() {
        let mut sessions = Sessions::default();
        for _ in 0..FAILURES {
            assert!(sessions.may_try(5));
            sessions.failed(5);
        }
        assert!(!sessions.may_try(5 + WINDOW_S - 1));
        assert!(sessions.may_try(5 + WINDOW_S));
    }
}
