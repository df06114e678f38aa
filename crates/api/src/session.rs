//! Sessions, and the limit on wrong passwords. The functions are pure: time and tokens are arguments.
//!
//! **Invariant.** A [`Session`] comes only from [`SessionStore::check`]: its field is private to this module, so other code
//! cannot build a session for a request that has none.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::source::Source;

/// Maximum number of sessions. A further one replaces the session that was idle longest.
const MAX_SESSIONS: usize = 64;
/// Seconds without a request after which a session ends.
const IDLE_TIMEOUT_S: u64 = 12 * 3600;
/// Maximum number of wrong passwords from one source within [`WRONG_PASSWORD_PERIOD_S`]; further tries from this source are
/// refused. Other sources are not affected, so that a guesser cannot lock the administrator out.
const MAX_WRONG_PASSWORDS: usize = 10;
/// Maximum number of sources with counted tries. A further one replaces the source whose last try is oldest.
const MAX_SOURCES: usize = 1024;
/// Seconds for which a wrong password counts.
const WRONG_PASSWORD_PERIOD_S: u64 = 60;

/// A valid session, as proof that a request is logged in. Only [`SessionStore::check`] can build it:
///
/// ```compile_fail
/// let forged = dyad_api::Session { user: "admin".into() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    user: String,
}

impl Session {
    /// Name of the user who logged in with the password.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// The secret of one session, which its client sends with each request.
#[derive(Clone, Copy)]
pub struct SessionToken<'a>(pub &'a str);

/// Leaves the token out, so that no log shows it.
impl fmt::Debug for SessionToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken")
    }
}

/// The sessions of this node, in memory only: a restart ends all sessions.
#[derive(Debug, Default)]
pub struct SessionStore {
    /// The sessions, by the SHA-256 of their tokens.
    open: HashMap<[u8; 32], OpenSession>,
    /// Times in seconds of the tries of each source whose password was wrong or is still being compared.
    tries: HashMap<Source, Vec<u64>>,
}

#[derive(Debug)]
struct OpenSession {
    user: String,
    /// Time of the last request, in seconds.
    used_s: u64,
}

impl SessionStore {
    /// Begins a session. `token` must be random; only its hash is kept. `now_s` counts seconds from any fixed time.
    pub fn begin(&mut self, token: SessionToken<'_>, user: &str, now_s: u64) {
        if self.open.len() >= MAX_SESSIONS
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used_s).map(|(hash, _)| *hash)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(hash(token), OpenSession { user: user.to_owned(), used_s: now_s });
    }

    /// The session of this token, if it is valid. The check counts as a request, so the idle time begins again.
    pub fn check(&mut self, token: SessionToken<'_>, now_s: u64) -> Option<Session> {
        self.open.retain(|_, open| now_s.saturating_sub(open.used_s) < IDLE_TIMEOUT_S);
        let open = self.open.get_mut(&hash(token))?;
        open.used_s = now_s;
        Some(Session { user: open.user.clone() })
    }

    /// Ends the session of this token. An unknown token changes nothing.
    pub fn end(&mut self, token: SessionToken<'_>) {
        self.open.remove(&hash(token));
    }

    /// Whether a password from this source may be compared now. If so, it counts as wrong until
    /// [`SessionStore::retract_try`] is called, so that the limit holds also for tries sent at the same time.
    pub fn may_try_password(&mut self, source: Source, now_s: u64) -> bool {
        self.tries.retain(|_, tries| {
            tries.retain(|at| now_s.saturating_sub(*at) < WRONG_PASSWORD_PERIOD_S);
            !tries.is_empty()
        });
        if self.tries.len() >= MAX_SOURCES
            && !self.tries.contains_key(&source)
            && let Some(oldest_source) =
                self.tries.iter().min_by_key(|(_, tries)| tries.last().copied()).map(|(source, _)| *source)
        {
            self.tries.remove(&oldest_source);
        }
        let tries = self.tries.entry(source).or_default();
        let may = tries.len() < MAX_WRONG_PASSWORDS;
        if may {
            tries.push(now_s);
        }
        may
    }

    /// Removes the last try of this source from the count: its password was right, or could not be compared.
    pub fn retract_try(&mut self, source: Source) {
        if let Some(tries) = self.tries.get_mut(&source) {
            tries.pop();
        }
    }
}

fn hash(token: SessionToken<'_>) -> [u8; 32] {
    Sha256::digest(token.0.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_valid_until_it_is_idle_or_ended() {
        let mut sessions = SessionStore::default();
        sessions.begin(SessionToken("a"), "admin", 0);
        assert_eq!(sessions.check(SessionToken("b"), 1), None);
        assert_eq!(sessions.check(SessionToken("a"), IDLE_TIMEOUT_S - 1).as_ref().map(Session::user), Some("admin"));
        assert!(sessions.check(SessionToken("a"), 2 * IDLE_TIMEOUT_S - 2).is_some(), "use keeps it valid");
        assert_eq!(sessions.check(SessionToken("a"), 4 * IDLE_TIMEOUT_S), None);
        sessions.begin(SessionToken("a"), "admin", 0);
        sessions.end(SessionToken("a"));
        assert_eq!(sessions.check(SessionToken("a"), 1), None);
    }

    #[test]
    fn a_session_above_the_limit_replaces_the_oldest() {
        let mut sessions = SessionStore::default();
        for i in 0..=MAX_SESSIONS {
            sessions.begin(SessionToken(&i.to_string()), "admin", i as u64);
        }
        assert_eq!(sessions.check(SessionToken("0"), 100), None);
        assert!(sessions.check(SessionToken("1"), 100).is_some());
    }

    fn source(number: u32) -> Source {
        Source::V4(std::net::Ipv4Addr::from(number))
    }

    #[test]
    fn wrong_passwords_are_limited_for_each_source_separately() {
        let mut sessions = SessionStore::default();
        for _ in 0..MAX_WRONG_PASSWORDS {
            assert!(sessions.may_try_password(source(1), 5));
        }
        assert!(!sessions.may_try_password(source(1), 5 + WRONG_PASSWORD_PERIOD_S - 1));
        assert!(
            sessions.may_try_password(source(2), 5 + WRONG_PASSWORD_PERIOD_S - 1),
            "guessing locks no other source out"
        );
        assert!(sessions.may_try_password(source(1), 5 + WRONG_PASSWORD_PERIOD_S));
    }

    #[test]
    fn right_passwords_are_not_limited() {
        let mut sessions = SessionStore::default();
        for _ in 0..2 * MAX_WRONG_PASSWORDS {
            assert!(sessions.may_try_password(source(1), 5));
            sessions.retract_try(source(1));
        }
    }

    #[test]
    fn the_source_with_the_oldest_try_is_forgotten() {
        let mut sessions = SessionStore::default();
        for number in 0..=MAX_SOURCES as u32 {
            assert!(sessions.may_try_password(source(number), u64::from(number / 100)));
        }
        assert_eq!(sessions.tries.len(), MAX_SOURCES);
        assert!(sessions.tries.contains_key(&source(MAX_SOURCES as u32)));
    }
}
