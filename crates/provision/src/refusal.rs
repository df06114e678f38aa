//! The refusals for failed pairings, enrolments and other errors: a code, and a sentence for people.

use dyad_control::{Refusal, RefusalCode, chain};
use dyad_link::pairing::{self, PairingError, Purpose};
use dyad_witness::client::EnrolError;

/// The refusal for a failed pairing with the first node or with a witness. Its sentence names the remedy.
pub fn of_pairing(error: &PairingError, purpose: Purpose) -> Refusal {
    let (code, host, remedy) = match purpose {
        Purpose::Node => ("pairing code", "first node", "open a new one on the first node"),
        Purpose::Witness => ("witness code", "witness", "print a new one on the witness (dyad-witness code)"),
    };
    let (reason, text) = match error {
        PairingError::WrongCode => (
            RefusalCode::WrongCode,
            format!("the {code} is wrong: compare it with the one on the {host} and type it again"),
        ),
        PairingError::Expired => (RefusalCode::CodeExpired, format!("the {code} has expired: {remedy}")),
        PairingError::NoCodeOpen => {
            (RefusalCode::NoCodeOpen, format!("no {code} is open on the {host}, or it was used already: {remedy}"))
        }
        PairingError::TooManyTries => {
            (RefusalCode::CodeVoid, format!("the {code} was tried {} times and is void: {remedy}", pairing::MAX_TRIES))
        }
        PairingError::Timeout => {
            let timeout_s = pairing::STEP_TIMEOUT.as_secs();
            (
                RefusalCode::Pairing,
                format!("the {host} did not answer within {timeout_s} s: check the network and try again"),
            )
        }
        PairingError::Version => {
            (RefusalCode::Pairing, format!("the {host} runs another version of Dyad: update the older one first"))
        }
        PairingError::Purpose | PairingError::Tls(_) | PairingError::Frame(_) => {
            (RefusalCode::Pairing, error.to_string())
        }
    };
    Refusal::new(reason, sentence(&text))
}

/// The refusal for a failed enrolment at a witness.
pub fn of_enrolment(error: &EnrolError) -> Refusal {
    match error {
        EnrolError::Pairing(pairing) => of_pairing(pairing, Purpose::Witness),
        other => Refusal::new(RefusalCode::Witness, sentence(&other.to_string())),
    }
}

/// The text of an error as a sentence: with a capital letter and a full stop.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let text: String = letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
    format!("{text}.")
}

/// A refusal with this code, whose sentence is the text of the error and of its causes.
pub fn of_error(code: RefusalCode, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(code, format!("{}.", chain(error)))
}
