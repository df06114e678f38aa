//! The administrator passwords that were typed into the wizard, kept in memory until setup begins. The browser gets only a
//! token for each password.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Maximum number of passwords kept. A further password replaces the oldest one, and the wizard that it belongs to asks for
/// it again.
const MAX_PASSWORDS: usize = 16;

/// Pairs of token and password, newest last.
#[derive(Default)]
pub(crate) struct PendingPasswords(Mutex<VecDeque<(String, String)>>);

impl PendingPasswords {
    /// Keeps a password and returns a random token for it.
    pub(crate) fn keep(&self, password: &str) -> String {
        let token = format!("{:032x}", rand::random::<u128>());
        let mut pending_passwords = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending_passwords.push_back((token.clone(), password.to_owned()));
        if pending_passwords.len() > MAX_PASSWORDS {
            pending_passwords.pop_front();
        }
        token
    }

    /// The password for `token`; `None` if the token is unknown or the password was dropped.
    pub(crate) fn get(&self, token: &str) -> Option<String> {
        let pending_passwords = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending_passwords.iter().find(|(known, _)| known == token).map(|(_, password)| password.clone())
    }

    /// Drops all passwords. Called when setup begins, after which no wizard needs one.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_password_is_dropped_and_clear_drops_all() {
        let pending_passwords = PendingPasswords::default();
        let tokens: Vec<String> = (0..=MAX_PASSWORDS).map(|i| pending_passwords.keep(&i.to_string())).collect();
        assert_eq!(pending_passwords.get(&tokens[0]), None);
        assert_eq!(pending_passwords.get(&tokens[1]).as_deref(), Some("1"));
        assert_eq!(pending_passwords.get("unknown"), None);
        pending_passwords.clear();
        assert_eq!(pending_passwords.get(&tokens[1]), None);
    }
}
