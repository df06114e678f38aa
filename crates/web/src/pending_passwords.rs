//! Passwords typed into the wizard, until its last page: the browser holds only a token for each.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most passwords kept; the oldest gives way, and its wizard asks again.
const MOST: usize = 16;

/// In memory only, newest last.
#[derive(Default)]
pub(crate) struct PendingPasswords(Mutex<VecDeque<(String, String)>>);

impl PendingPasswords {
    /// Keeps a password and gives the token for it.
    pub(crate) fn keep(&self, password: &str) -> String {
        let token = format!("{:032x}", rand::random::<u128>());
        let mut pending_passwords = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending_passwords.push_back((token.clone(), password.to_owned()));
        if pending_passwords.len() > MOST {
            pending_passwords.pop_front();
        }
        token
    }

    /// The password of this token.
    pub(crate) fn get(&self, token: &str) -> Option<String> {
        let pending_passwords = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending_passwords.iter().find(|(known, _)| known == token).map(|(_, password)| password.clone())
    }

    /// Setup has begun: no wizard needs its password any more.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_the_end_clears_all() {
        let pending_passwords = PendingPasswords::default();
        let tokens: Vec<String> = (0..=MOST).map(|i| pending_passwords.keep(&i.to_string())).collect();
        assert_eq!(pending_passwords.get(&tokens[0]), None);
        assert_eq!(pending_passwords.get(&tokens[1]).as_deref(), Some("1"));
        assert_eq!(pending_passwords.get("unknown"), None);
        pending_passwords.clear();
        assert_eq!(pending_passwords.get(&tokens[1]), None);
    }
}
