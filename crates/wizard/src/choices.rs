//! Answers with fixed words, as types. The words are defined only here and used by each front end and the seed file.

use crate::{Answers, QuestionId};

/// The word before the names of disks in a confirmation, such as `erase vdb vdc`.
pub const ERASE_WORD: &str = "erase";

/// The stored answer to [`QuestionId::Witness`] if there is no witness yet.
const LATER_WORD: &str = "later";

/// The answer to [`QuestionId::Role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The node begins a new pair.
    First,
    /// The node joins a pair as its second node.
    Join,
}

impl Role {
    /// The stored word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Join => "join",
        }
    }

    /// The role that these answers give; `None`: not answered.
    pub fn of(answers: &Answers) -> Option<Self> {
        let word = answers.get(QuestionId::Role)?;
        [Self::First, Self::Join].into_iter().find(|role| role.word() == word)
    }
}

/// The answer to [`QuestionId::Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressing {
    Dhcp,
    Static,
}

impl Addressing {
    /// The stored word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Static => "static",
        }
    }

    /// The addressing that these answers give; `None`: not answered.
    pub fn of(answers: &Answers) -> Option<Self> {
        let word = answers.get(QuestionId::Network)?;
        [Self::Dhcp, Self::Static].into_iter().find(|addressing| addressing.word() == word)
    }
}

/// The answer to [`QuestionId::Witness`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WitnessAnswer {
    /// The pair begins without a witness.
    Later,
    /// `host:port` of the witness.
    Address(String),
}

impl WitnessAnswer {
    /// The answer if `text` is the word for [`WitnessAnswer::Later`], in any case.
    pub fn later(text: &str) -> Option<Self> {
        text.eq_ignore_ascii_case(LATER_WORD).then_some(Self::Later)
    }

    /// The text that is stored.
    pub fn into_text(self) -> String {
        match self {
            Self::Later => LATER_WORD.to_owned(),
            Self::Address(address) => address,
        }
    }

    /// The witness that these answers give; `None`: not answered.
    pub fn of(answers: &Answers) -> Option<Self> {
        let text = answers.get(QuestionId::Witness)?;
        Some(Self::later(text).unwrap_or_else(|| Self::Address(text.to_owned())))
    }
}
