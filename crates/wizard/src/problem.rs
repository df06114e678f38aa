//! The reasons to refuse an answer, each with one sentence that is the same in every front end.

use crate::{PAIRING_CODE_DIGITS, PASSWORD_LENGTH};

/// The reason for which an answer or a seed file was refused. A refused answer changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The seed file is not valid TOML, or the request is not valid JSON. With the parser's reason.
    #[error("The setup cannot be read: {0}.")]
    Unreadable(String),
    /// A key that belongs to no question.
    #[error("The key \"{0}\" is unknown: remove it or correct its spelling.")]
    UnknownKey(String),
    /// A key that does not fit the other answers.
    #[error("The key \"{0}\" does not fit the other answers: remove it.")]
    UnfittingKey(&'static str),
    /// A key whose value is not a text or a list of texts.
    #[error("The key \"{0}\" must be a text in quotes or a list of such texts.")]
    WrongType(&'static str),
    /// A required answer is missing.
    #[error("The answer \"{key}\" ({title}) is missing.")]
    Missing { key: &'static str, title: &'static str },
    /// The text is not one of the choices.
    #[error("\"{given}\" is not an answer to \"{key}\": choose {choices}.")]
    NotAChoice {
        key: &'static str,
        given: String,
        /// The choices, joined by "or".
        choices: String,
    },
    /// No disk of the node has this path or name.
    #[error("There is no disk {0} in this node: choose a disk of the list.")]
    NoDisk(String),
    /// The disk belongs to a pair.
    #[error(
        "The disk {disk} belongs to the pair \"{pair}\" (node {node}) and is never overwritten: choose another disk, or erase this one first (dyad erase --disk)."
    )]
    DiskOfPair {
        disk: String,
        /// Name of the disk's pair.
        pair: String,
        /// Name of the disk's node in that pair.
        node: String,
    },
    /// The typed confirmation differs from the expected text, which is given.
    #[error("Nothing was erased: to confirm, type exactly \"{0}\".")]
    NotConfirmed(String),
    /// The name of a pair or node violates the rule for names.
    #[error(transparent)]
    Name(#[from] dyad_desired::Refusal),
    /// The password is too short or too long, or has control characters.
    #[error("The password must have {} to {} characters and no control characters.", PASSWORD_LENGTH.start(), PASSWORD_LENGTH.end())]
    Password,
    /// The pairing code is not six digits.
    #[error("A pairing code is {} digits, as the first node shows them.", PAIRING_CODE_DIGITS)]
    Code,
    /// The witness's code is longer than 64 characters, or has other characters than letters, digits and hyphens.
    #[error("A witness code is letters, digits and hyphens, as the witness printed it.")]
    WitnessCode,
    /// The text is not an IP address with a prefix length.
    #[error("\"{0}\" is not an address with a prefix length: write it like 192.0.2.10/24.")]
    Address(String),
    /// The text is not an IP address.
    #[error("\"{0}\" is not an address: write it like 192.0.2.1.")]
    PlainAddress(String),
    /// The text is not a host with an optional port.
    #[error("\"{0}\" is not a witness: write a host name or an address, with :port if it is not {port}, or the word later.", port = dyad_types::WITNESS_PORT)]
    Witness(String),
    /// The node has no network port with this name.
    #[error("There is no network port {0} in this node: choose a port of the list.")]
    NoPort(String),
    /// The management port is named as a port of the peer link.
    #[error("The port {0} is the management port: choose other ports for the peer link.")]
    PortTwice(String),
    /// More than [`MAX_PEER_LINKS`](crate::MAX_PEER_LINKS) ports are named for the peer link.
    #[error("At most {} ports can be peer links: choose the fastest ones.", crate::MAX_PEER_LINKS)]
    TooManyLinks,
    /// No discovered pair has this id or name.
    #[error("No first node of a pair \"{0}\" is heard: open its pairing code and check the cables.")]
    NoOffer(String),
}
