//! The one-time codes of a host: their creation, their limits, and the check of each try.
//!
//! **Invariants**
//! * A code is used at most once, and tried at most [`MAX_TRIES`] times within [`CODE_VALIDITY_PERIOD`].
//! * A try is counted when it begins, so that concurrent tries cannot exceed the maximum.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{MAX_TRIES, PairingError};
use crate::random_bytes;

/// Time from the creation of a code until no further try of it begins.
pub const CODE_VALIDITY_PERIOD: Duration = Duration::from_secs(600);
/// Maximum number of stored codes, including used and void ones; beyond it the oldest code is dropped.
const MAX_CODES: usize = 100;

/// The characters of a witness code: digits and letters that are not mistaken for each other (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The form of a code: its length, and the number of codes that may be open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeForm {
    /// Six digits, shown by the first node and typed at the second one. One is open at a time: a new code replaces it.
    Node,
    /// A label of two characters and a secret of eight, such as `K7-3QMD-XW0Z`. Many are open at a time; the label
    /// tells which one was typed.
    Witness,
}

/// An open code, to be shown to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCode {
    /// The text to type on the other machine.
    pub code: String,
    /// Time until the code expires.
    pub left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodeState {
    /// Tries are allowed until the validity ends.
    Open,
    /// A joiner has proven that it knows the code.
    Used,
    /// All tries have begun; the last one may still succeed.
    Void,
}

#[derive(Debug)]
struct Code {
    secret: String,
    /// Number of the code among all codes of this process, by which an attempt at a replaced code is recognised.
    generation: u64,
    opened_at: Instant,
    tries: u32,
    state: CodeState,
}

#[derive(Debug, Default)]
struct CodeTable {
    /// The codes by label; a node's code has the empty label.
    codes: BTreeMap<String, Code>,
    /// [`Code::generation`] of the newest code.
    generation: u64,
}

/// A counted try: the secret and the number of the code that was tried.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) secret: String,
    pub(super) generation: u64,
}

/// A code as a person typed it, split into the public label, which names the code, and the secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypedCode {
    pub(super) label: String,
    pub(super) secret: String,
}

/// Parses a typed code; ignores case and separators, and reads O, I and L as digits.
pub(super) fn parse(code: &str) -> TypedCode {
    let plain: String = code
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .map(|letter| match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    // A text of ten characters is a witness code, label and secret. Every other text is a secret with the empty label.
    if plain.len() == 10 {
        let (label, secret) = plain.split_at(2);
        return TypedCode { label: label.to_owned(), secret: secret.to_owned() };
    }
    TypedCode { label: String::new(), secret: plain }
}

fn random_letters(count: usize) -> String {
    // 32 divides 256, so each letter has the same probability.
    random_bytes::<16>().iter().take(count).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

fn random_digits() -> String {
    // The bias of 2^64 modulo 1,000,000 is below 10^-13, which is too small to matter within five tries.
    format!("{:06}", u64::from_be_bytes(random_bytes()) % 1_000_000)
}

/// The codes of one machine. They are in memory only: a restart of the process drops them.
#[derive(Debug, Default)]
pub struct Codes {
    inner: Mutex<CodeTable>,
}

impl Codes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, CodeTable> {
        // The table is consistent between any two of its changes, so a panic of another thread does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a code that is valid from `now` on.
    #[must_use]
    pub fn open(&self, form: CodeForm, now: Instant) -> OpenCode {
        let mut inner = self.lock();
        inner.drop_old(now);
        inner.generation += 1;
        let generation = inner.generation;
        let (label, secret, code) = match form {
            CodeForm::Node => {
                let secret = random_digits();
                (String::new(), secret.clone(), secret)
            }
            CodeForm::Witness => {
                let mut label = random_letters(2);
                while inner.codes.contains_key(&label) {
                    label = random_letters(2);
                }
                let secret = random_letters(8);
                let code = format!("{label}-{}-{}", &secret[..4], &secret[4..]);
                (label, secret, code)
            }
        };
        let fresh = Code { secret, generation, opened_at: now, tries: 0, state: CodeState::Open };
        inner.codes.insert(label, fresh);
        OpenCode { code, left: CODE_VALIDITY_PERIOD }
    }

    /// The open code of the form [`CodeForm::Node`]; `None` if there is none, or if it is used, void or expired.
    #[must_use]
    pub fn open_node_code(&self, now: Instant) -> Option<OpenCode> {
        let inner = self.lock();
        let code = inner.codes.get("").filter(|code| code.state == CodeState::Open)?;
        let left = CODE_VALIDITY_PERIOD
            .checked_sub(now.saturating_duration_since(code.opened_at))
            .filter(|left| !left.is_zero())?;
        Some(OpenCode { code: code.secret.clone(), left })
    }

    /// Drops all codes. A joining node that has not proven a code yet is refused with [`PairingError::NoCodeOpen`].
    pub fn close(&self) {
        self.lock().codes.clear();
    }

    /// Counts a try of the code with this label and returns its secret.
    pub(super) fn attempt(&self, label: &str, now: Instant) -> Result<Attempt, PairingError> {
        let mut inner = self.lock();
        if inner.codes.values().all(|code| code.state == CodeState::Used) {
            return Err(PairingError::NoCodeOpen);
        }
        // No code has this label, although codes exist that were not used: the person mistyped one of them.
        let code = inner.codes.get_mut(label).ok_or(PairingError::WrongCode)?;
        match code.state {
            CodeState::Used => return Err(PairingError::NoCodeOpen),
            CodeState::Void => return Err(PairingError::TooManyTries),
            CodeState::Open => {}
        }
        if now.saturating_duration_since(code.opened_at) >= CODE_VALIDITY_PERIOD {
            return Err(PairingError::Expired);
        }
        code.tries += 1;
        if code.tries >= MAX_TRIES {
            code.state = CodeState::Void;
        }
        Ok(Attempt { secret: code.secret.clone(), generation: code.generation })
    }

    /// The error of a try with a wrong secret: [`PairingError::TooManyTries`] if no try is left.
    pub(super) fn wrong_try_error(&self, label: &str) -> PairingError {
        match self.lock().codes.get(label) {
            Some(code) if code.state == CodeState::Void => PairingError::TooManyTries,
            _ => PairingError::WrongCode,
        }
    }

    /// Marks the code as used. Called when the joiner has proven that it knows the code. The last allowed try may
    /// succeed although its beginning made the code void for further tries.
    pub(super) fn mark_used(&self, label: &str, generation: u64) -> Result<(), PairingError> {
        let mut inner = self.lock();
        let code = inner.codes.get_mut(label).filter(|code| code.generation == generation);
        let code = code.filter(|code| code.state != CodeState::Used).ok_or(PairingError::NoCodeOpen)?;
        code.state = CodeState::Used;
        Ok(())
    }
}

impl CodeTable {
    /// Drops the codes that are older than twice their validity, and as many of the oldest as are needed for a new one
    /// to fit below [`MAX_CODES`].
    fn drop_old(&mut self, now: Instant) {
        self.codes.retain(|_, code| now.saturating_duration_since(code.opened_at) < CODE_VALIDITY_PERIOD * 2);
        while self.codes.len() >= MAX_CODES {
            let oldest = self.codes.iter().min_by_key(|(_, code)| code.generation).map(|(label, _)| label.clone());
            self.codes.remove(&oldest.expect("a full table has an oldest code"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_node_code_is_six_digits_and_replaces_the_one_before() {
        let (codes, now) = (Codes::new(), Instant::now());
        let first = codes.open(CodeForm::Node, now);
        let second = codes.open(CodeForm::Node, now);
        assert!(first.code.len() == 6 && first.code.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(codes.open_node_code(now), Some(second.clone()));
        assert_eq!(codes.attempt("", now).unwrap().secret, second.code);
    }

    #[test]
    fn a_code_is_valid_for_ten_minutes() {
        let (codes, now) = (Codes::new(), Instant::now());
        let _ = codes.open(CodeForm::Node, now);
        let last = now + CODE_VALIDITY_PERIOD - Duration::from_secs(1);
        assert_eq!(codes.open_node_code(last).unwrap().left, Duration::from_secs(1));
        assert!(codes.attempt("", last).is_ok());
        assert!(matches!(codes.attempt("", now + CODE_VALIDITY_PERIOD), Err(PairingError::Expired)));
        assert_eq!(codes.open_node_code(now + CODE_VALIDITY_PERIOD), None);
    }

    #[test]
    fn the_sixth_try_is_refused_even_if_all_run_at_once() {
        let (codes, now) = (Codes::new(), Instant::now());
        let _ = codes.open(CodeForm::Node, now);
        let tries: Vec<_> = (0..7).map(|_| codes.attempt("", now)).collect();
        assert_eq!(tries.iter().filter(|attempt| attempt.is_ok()).count(), 5);
        assert!(matches!(tries[5], Err(PairingError::TooManyTries)));
        assert_eq!(codes.open_node_code(now), None);
        // The fifth try may be the right one.
        codes.mark_used("", tries[4].as_ref().unwrap().generation).unwrap();
    }

    #[test]
    fn a_used_code_is_refused_and_an_old_attempt_does_not_use_a_new_code() {
        let (codes, now) = (Codes::new(), Instant::now());
        assert!(matches!(codes.attempt("", now), Err(PairingError::NoCodeOpen)));
        let _ = codes.open(CodeForm::Node, now);
        let generation = codes.attempt("", now).unwrap().generation;
        codes.mark_used("", generation).unwrap();
        assert!(matches!(codes.mark_used("", generation), Err(PairingError::NoCodeOpen)));
        assert!(matches!(codes.attempt("", now), Err(PairingError::NoCodeOpen)));
        // An attempt at an old code does not use up a new one.
        let _ = codes.open(CodeForm::Node, now);
        assert!(codes.mark_used("", generation).is_err());
        assert!(codes.open_node_code(now).is_some());
    }

    #[test]
    fn many_witness_codes_may_be_open_and_are_found_by_label() {
        let (codes, now) = (Codes::new(), Instant::now());
        let open: Vec<OpenCode> = (0..20).map(|_| codes.open(CodeForm::Witness, now)).collect();
        for code in &open {
            let typed = parse(&code.code.to_lowercase());
            assert_eq!(codes.attempt(&typed.label, now).unwrap().secret, typed.secret);
        }
        assert!(matches!(codes.attempt("", now), Err(PairingError::WrongCode)));
    }

    #[test]
    fn the_number_of_stored_codes_is_bounded() {
        let (codes, now) = (Codes::new(), Instant::now());
        (0..MAX_CODES * 3).for_each(|_| drop(codes.open(CodeForm::Witness, now)));
        assert!(codes.lock().codes.len() <= MAX_CODES);
    }

    #[test]
    fn case_separators_and_similar_letters_are_accepted() {
        assert_eq!(parse(" 123 456 "), TypedCode { label: String::new(), secret: "123456".into() });
        assert_eq!(parse("k7-3qmd xwoz"), TypedCode { label: "K7".into(), secret: "3QMDXW0Z".into() });
        assert_eq!(parse("il-oooo-oooo"), TypedCode { label: "11".into(), secret: "00000000".into() });
    }

    proptest! {
        #[test]
        fn any_typed_text_is_parsed_without_a_panic(text in ".{0,40}") {
            let typed = parse(&text);
            prop_assert!(typed.secret.len() <= 40);
        }
    }
}
