//! One-time codes: created, shown, tried, used.
//!
//! **Invariants**
//! * A code is used at most once, tried at most [`MAX_TRIES`] times, and only within [`CODE_VALIDITY_PERIOD`].
//! * A try is counted when it begins, so concurrent tries do not add to their number.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{MAX_TRIES, PairingError};
use crate::random;

/// How long a code is valid.
pub const CODE_VALIDITY_PERIOD: Duration = Duration::from_secs(600);
/// Maximum number of stored codes, including used and void ones.
const MAX_CODES: usize = 100;

/// Digits and letters that are not mistaken for each other (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How long a code is and how many may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeForm {
    /// Six digits, typed from one node's screen into the other node. One is open at a time: a new code replaces it.
    Node,
    /// A label of two characters and a secret of eight, such as `K7-3QMD-XW0Z`. Many may be open at a time.
    Witness,
}

/// A code to be shown to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCode {
    /// The text to type on the other machine.
    pub code: String,
    /// Time until the code expires.
    pub left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Used,
    Void,
}

#[derive(Debug)]
struct Code {
    secret: String,
    generation: u64,
    opened: Instant,
    tries: u32,
    state: State,
}

#[derive(Debug, Default)]
struct Inner {
    codes: BTreeMap<String, Code>,
    generation: u64,
}

/// A try that was counted.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) secret: String,
    pub(super) generation: u64,
}

/// A typed code: a public label, which names the code, and the secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) label: String,
    pub(super) secret: String,
}

/// Parses a typed code; ignores case and separators, and reads O, I and L as digits.
pub(super) fn parse(code: &str) -> Typed {
    let plain: String = code
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .map(|letter| match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    // A witness's code has ten characters: a label of two and a secret of eight. A node's code is a secret only.
    if plain.len() == 10 {
        let (label, secret) = plain.split_at(2);
        return Typed { label: label.to_owned(), secret: secret.to_owned() };
    }
    Typed { label: String::new(), secret: plain }
}

fn letters(count: usize) -> String {
    // 32 divides 256, so each letter has the same probability.
    random::<16>().iter().take(count).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

fn digits() -> String {
    // The bias of 2^64 modulo 1,000,000 is too small to matter within five tries.
    format!("{:06}", u64::from_be_bytes(random()) % 1_000_000)
}

/// The codes of one machine, in memory only: a restart drops them.
#[derive(Debug, Default)]
pub struct Codes {
    inner: Mutex<Inner>,
}

impl Codes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic cannot leave the table half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn open(&self, form: CodeForm, now: Instant) -> OpenCode {
        let mut inner = self.lock();
        inner.forget(now);
        inner.generation += 1;
        let generation = inner.generation;
        let (label, secret, code) = match form {
            CodeForm::Node => {
                let secret = digits();
                (String::new(), secret.clone(), secret)
            }
            CodeForm::Witness => {
                let mut label = letters(2);
                while inner.codes.contains_key(&label) {
                    label = letters(2);
                }
                let secret = letters(8);
                let code = format!("{label}-{}-{}", &secret[..4], &secret[4..]);
                (label, secret, code)
            }
        };
        let fresh = Code { secret, generation, opened: now, tries: 0, state: State::Open };
        inner.codes.insert(label, fresh);
        OpenCode { code, left: CODE_VALIDITY_PERIOD }
    }

    /// The open code of a node, for its screen.
    #[must_use]
    pub fn shown(&self, now: Instant) -> Option<OpenCode> {
        let inner = self.lock();
        let code = inner.codes.get("").filter(|code| code.state == State::Open)?;
        let left = CODE_VALIDITY_PERIOD
            .checked_sub(now.saturating_duration_since(code.opened))
            .filter(|left| !left.is_zero())?;
        Some(OpenCode { code: code.secret.clone(), left })
    }

    /// Drops all codes.
    pub fn close(&self) {
        self.lock().codes.clear();
    }

    /// Counts a try of the code with this label and returns its secret.
    pub(super) fn attempt(&self, label: &str, now: Instant) -> Result<Attempt, PairingError> {
        let mut inner = self.lock();
        if inner.codes.values().all(|code| code.state == State::Used) {
            return Err(PairingError::NoCodeOpen);
        }
        // Another code is open, so the typed one is wrong.
        let code = inner.codes.get_mut(label).ok_or(PairingError::WrongCode)?;
        match code.state {
            State::Used => return Err(PairingError::NoCodeOpen),
            State::Void => return Err(PairingError::TooManyTries),
            State::Open => {}
        }
        if now.saturating_duration_since(code.opened) >= CODE_VALIDITY_PERIOD {
            return Err(PairingError::Expired);
        }
        code.tries += 1;
        if code.tries >= MAX_TRIES {
            code.state = State::Void;
        }
        Ok(Attempt { secret: code.secret.clone(), generation: code.generation })
    }

    /// The error for a wrong try.
    pub(super) fn after_wrong(&self, label: &str) -> PairingError {
        match self.lock().codes.get(label) {
            Some(code) if code.state == State::Void => PairingError::TooManyTries,
            _ => PairingError::WrongCode,
        }
    }

    /// Marks the code as used, after the other side has proven that it knows it. The last allowed try may succeed
    /// although it made the code void for further tries.
    pub(super) fn use_up(&self, label: &str, generation: u64) -> Result<(), PairingError> {
        let mut inner = self.lock();
        let code = inner.codes.get_mut(label).filter(|code| code.generation == generation);
        let code = code.filter(|code| code.state != State::Used).ok_or(PairingError::NoCodeOpen)?;
        code.state = State::Used;
        Ok(())
    }
}

impl Inner {
    /// Drops codes after twice their validity, and the oldest ones above the maximum.
    fn forget(&mut self, now: Instant) {
        self.codes.retain(|_, code| now.saturating_duration_since(code.opened) < CODE_VALIDITY_PERIOD * 2);
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
        assert_eq!(codes.shown(now), Some(second.clone()));
        assert_eq!(codes.attempt("", now).unwrap().secret, second.code);
    }

    #[test]
    fn a_code_is_valid_for_ten_minutes() {
        let (codes, now) = (Codes::new(), Instant::now());
        let _ = codes.open(CodeForm::Node, now);
        let last = now + CODE_VALIDITY_PERIOD - Duration::from_secs(1);
        assert_eq!(codes.shown(last).unwrap().left, Duration::from_secs(1));
        assert!(codes.attempt("", last).is_ok());
        assert!(matches!(codes.attempt("", now + CODE_VALIDITY_PERIOD), Err(PairingError::Expired)));
        assert_eq!(codes.shown(now + CODE_VALIDITY_PERIOD), None);
    }

    #[test]
    fn the_sixth_try_is_refused_even_if_all_run_at_once() {
        let (codes, now) = (Codes::new(), Instant::now());
        let _ = codes.open(CodeForm::Node, now);
        let tries: Vec<_> = (0..7).map(|_| codes.attempt("", now)).collect();
        assert_eq!(tries.iter().filter(|attempt| attempt.is_ok()).count(), 5);
        assert!(matches!(tries[5], Err(PairingError::TooManyTries)));
        assert_eq!(codes.shown(now), None);
        // The fifth try may be the right one.
        codes.use_up("", tries[4].as_ref().unwrap().generation).unwrap();
    }

    #[test]
    fn a_used_code_is_gone() {
        let (codes, now) = (Codes::new(), Instant::now());
        assert!(matches!(codes.attempt("", now), Err(PairingError::NoCodeOpen)));
        let _ = codes.open(CodeForm::Node, now);
        let generation = codes.attempt("", now).unwrap().generation;
        codes.use_up("", generation).unwrap();
        assert!(matches!(codes.use_up("", generation), Err(PairingError::NoCodeOpen)));
        assert!(matches!(codes.attempt("", now), Err(PairingError::NoCodeOpen)));
        // An attempt at an old code does not use up a new one.
        let _ = codes.open(CodeForm::Node, now);
        assert!(codes.use_up("", generation).is_err());
        assert!(codes.shown(now).is_some());
    }

    #[test]
    fn many_witness_codes_are_open_and_the_label_tells_which() {
        let (codes, now) = (Codes::new(), Instant::now());
        let open: Vec<OpenCode> = (0..20).map(|_| codes.open(CodeForm::Witness, now)).collect();
        for code in &open {
            let typed = parse(&code.code.to_lowercase());
            assert_eq!(codes.attempt(&typed.label, now).unwrap().secret, typed.secret);
        }
        assert!(matches!(codes.attempt("", now), Err(PairingError::WrongCode)));
    }

    #[test]
    fn the_table_of_codes_is_bounded() {
        let (codes, now) = (Codes::new(), Instant::now());
        (0..MAX_CODES * 3).for_each(|_| drop(codes.open(CodeForm::Witness, now)));
        assert!(codes.lock().codes.len() <= MAX_CODES);
    }

    #[test]
    fn case_separators_and_similar_letters_are_accepted() {
        assert_eq!(parse(" 123 456 "), Typed { label: String::new(), secret: "123456".into() });
        assert_eq!(parse("k7-3qmd xwoz"), Typed { label: "K7".into(), secret: "3QMDXW0Z".into() });
        assert_eq!(parse("il-oooo-oooo"), Typed { label: "11".into(), secret: "00000000".into() });
    }

    proptest! {
        #[test]
        fn anything_may_be_typed(text in ".{0,40}") {
            let typed = parse(&text);
            prop_assert!(typed.secret.len() <= 40);
        }
    }
}
