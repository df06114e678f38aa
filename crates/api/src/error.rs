//! Errors of the API. Each has one sentence for people and one code for programs.
//!
//! **Invariants.** [`ErrorCode`] is a closed list. The HTTP status follows from the code in one exhaustive match
//! ([`ErrorCode::http_status`]); a call site gives a code and a sentence, never a status or a word. Two codes never share a
//! word, and a word on the wire never changes its meaning.

use std::fmt;

use dyad_control::{ClientError, RefusalCode};
use dyad_wizard::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reason why a request was refused or a setup failed. A refused request has changed nothing, unless its
/// sentence says that this is not known; a setup that failed may have formatted disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// One sentence for people: the reason, and what to do.
    pub error: String,
    /// A short stable word for programs, such as `name-exists`.
    #[schema(value_type = String)]
    pub code: ErrorCode,
}

impl ApiError {
    /// A refusal with this sentence. The code gives the HTTP status.
    #[must_use]
    pub fn new(code: impl Into<ErrorCode>, sentence: impl Into<String>) -> Self {
        ApiError { error: sentence.into(), code: code.into() }
    }

    /// The refusal of a request without a valid session.
    #[must_use]
    pub fn login_needed() -> Self {
        Self::new(ErrorCode::LoginNeeded, "Log in first: this needs the administrator's password.")
    }

    /// Status of the HTTP response that carries the refusal; not part of the body.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.code.http_status()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for ApiError {}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The reason of an [`ApiError`] as a closed list, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            /// A code of `dyad-core`, for a rule of the document or of setup. `dyad-node` itself also uses these codes
            /// where its reason is the same.
            Refused(RefusalCode),
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// All codes that `dyad-core` does not have.
            const OWN: &[Self] = &[$(Self::$name,)*];

            /// The code as it stands in the field `code` of the JSON body.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    Self::Refused(code) => code.word(),
                    $(Self::$name => $word,)*
                }
            }

            /// The code for a word of the JSON body. A word that this version does not know, because a newer version sent
            /// it, gives [`RefusalCode::Unrecognised`].
            #[must_use]
            pub fn from_word(word: &str) -> Self {
                match word {
                    $($word => Self::$name,)*
                    _ => Self::Refused(RefusalCode::from_word(word)),
                }
            }
        }
    };
}

error_codes! {
    /// The request carries no valid session.
    LoginNeeded = "login-needed",
    WrongPassword = "wrong-password",
    /// The limit of wrong passwords from one source is reached.
    TooManyTries = "too-many-tries",
    PasswordHash = "password-hash",

    /// No route of the API has this path.
    UnknownRoute = "unknown-route",
    /// The body of the request, or the seed file, cannot be parsed.
    Unreadable = "unreadable",
    /// The request for the serial line is no WebSocket upgrade.
    NoWebsocket = "no-websocket",
    /// The request has no Content-Length.
    NoLength = "no-length",

    /// dyad-core does not answer on its socket.
    CoreAway = "core-away",
    /// dyad-core ended the connection before it answered: whether the change was made is not known.
    CoreCut = "core-cut",
    /// dyad-core answered in a form that this version does not know: whether the change was made is not known.
    CoreUnknown = "core-unknown",

    /// The supervisor has not yet reported which VMs run.
    VmsUnknown = "vms-unknown",
    /// The VM is on the other node.
    Elsewhere = "elsewhere",
    /// The node is neither "A" nor "B".
    UnknownNode = "unknown-node",
    /// The VM or volume was created by this request, and another client deleted it before the reply was written.
    Gone = "gone",
    /// The VM has not run on this node since `dyad-node` started, so there is no output to read.
    NoSerial = "no-serial",

    NoWatchdog = "no-watchdog",
    AlreadyProven = "already-proven",
    /// The watchdog did not reset this node within four of its periods.
    WatchdogFailed = "watchdog",

    EmptyImage = "empty-image",
    /// The image is not a raw image: it has another format, is compressed, or is an archive.
    NotRaw = "not-raw",
    /// The upload ended before the announced length.
    ShortImage = "short-image",
    /// The image has another SHA-256 than the request named.
    CorruptImage = "corrupt-image",
    /// The SHA-256 in the request is not 64 hexadecimal digits.
    BadChecksum = "bad-checksum",

    /// The network cannot be set up as the answers say.
    Network = "network",
    /// The pool did not open within two minutes after its disks were formatted.
    PoolLate = "pool-late",

    UnknownKey = "unknown-key",
    /// The key answers a question that the other answers rule out, such as a pairing code for a first node.
    UnfittingKey = "unfitting-key",
    WrongType = "wrong-type",
    MissingAnswer = "missing-answer",
    NotAChoice = "not-a-choice",
    /// The confirmation is not the text that must be typed.
    NotConfirmed = "not-confirmed",
    BadPassword = "bad-password",
    /// The pairing code or the witness code has a wrong form.
    BadCode = "bad-code",
    BadAddress = "bad-address",
    BadWitness = "bad-witness",
    NoPort = "no-port",
    /// The management port is named as a peer link too.
    PortTwice = "port-twice",
    TooManyLinks = "too-many-links",
}

impl ErrorCode {
    /// Every code of this version, those of `dyad-core` first; tests compare them with the manual.
    pub fn all() -> impl Iterator<Item = Self> {
        RefusalCode::ALL.iter().copied().map(Self::Refused).chain(Self::OWN.iter().copied())
    }

    /// Status of the HTTP response that carries the refusal: 401 = log in, 404 = it does not exist, 409 = it clashes with
    /// what is there, 411 and 426 = the HTTP request lacks something, 422 = the request itself must change, 429 = wait a
    /// minute, 500 = this node is at fault, 503 = the same request may succeed later, 504 = a step of setup took too long.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Refused(code) => code.http_status(),
            Self::LoginNeeded | Self::WrongPassword => 401,
            Self::UnknownRoute => 404,
            Self::Elsewhere | Self::Gone | Self::NoSerial | Self::NoWatchdog | Self::AlreadyProven => 409,
            Self::NoLength => 411,
            Self::Unreadable
            | Self::UnknownNode
            | Self::EmptyImage
            | Self::NotRaw
            | Self::ShortImage
            | Self::CorruptImage
            | Self::BadChecksum
            | Self::Network
            | Self::UnknownKey
            | Self::UnfittingKey
            | Self::WrongType
            | Self::MissingAnswer
            | Self::NotAChoice
            | Self::NotConfirmed
            | Self::BadPassword
            | Self::BadCode
            | Self::BadAddress
            | Self::BadWitness
            | Self::NoPort
            | Self::PortTwice
            | Self::TooManyLinks => 422,
            Self::NoWebsocket => 426,
            Self::TooManyTries => 429,
            Self::PasswordHash | Self::CoreUnknown | Self::WatchdogFailed => 500,
            Self::CoreAway | Self::CoreCut | Self::VmsUnknown => 503,
            Self::PoolLate => 504,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from_word(&word))
    }
}

impl From<RefusalCode> for ErrorCode {
    fn from(code: RefusalCode) -> Self {
        Self::Refused(code)
    }
}

impl From<&Problem> for ErrorCode {
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::Unreadable(_) => Self::Unreadable,
            Problem::UnknownKey(_) => Self::UnknownKey,
            Problem::UnfittingKey(_) => Self::UnfittingKey,
            Problem::WrongType(_) => Self::WrongType,
            Problem::Missing { .. } => Self::MissingAnswer,
            Problem::NotAChoice { .. } => Self::NotAChoice,
            Problem::NoDisk(_) => Self::Refused(RefusalCode::NoDisk),
            Problem::DiskOfPair { .. } => Self::Refused(RefusalCode::DiskOfPair),
            Problem::NotConfirmed(_) => Self::NotConfirmed,
            Problem::Name(refusal) => Self::Refused(refusal.into()),
            Problem::Password => Self::BadPassword,
            Problem::Code | Problem::WitnessCode => Self::BadCode,
            Problem::Address(_) | Problem::PlainAddress(_) => Self::BadAddress,
            Problem::Witness(_) => Self::BadWitness,
            Problem::NoPort(_) => Self::NoPort,
            Problem::PortTwice(_) => Self::PortTwice,
            Problem::TooManyLinks => Self::TooManyLinks,
            Problem::NoOffer(_) => Self::Refused(RefusalCode::NoOffer),
        }
    }
}

impl From<dyad_control::Refusal> for ApiError {
    fn from(refusal: dyad_control::Refusal) -> Self {
        Self::new(refusal.code, refusal.sentence)
    }
}

impl From<dyad_desired::Refusal> for ApiError {
    fn from(refusal: dyad_desired::Refusal) -> Self {
        dyad_control::Refusal::from(refusal).into()
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self::new(ErrorCode::from(&problem), problem.to_string())
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::Unreachable { .. } => Self::new(ErrorCode::CoreAway, dyad_control::CORE_AWAY),
            ClientError::Cut(_) => Self::new(
                ErrorCode::CoreCut,
                "The storage service of this node restarted before it answered: look whether the change was made, then try again.",
            ),
            ClientError::Unknown(_) => Self::new(
                ErrorCode::CoreUnknown,
                "The storage service of this node speaks another version: restart this node.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_its_own_word_and_comes_back_from_it() {
        let words: BTreeSet<_> = ErrorCode::all().map(ErrorCode::word).collect();
        assert_eq!(words.len(), ErrorCode::all().count());
        for code in ErrorCode::all() {
            let text = serde_json::to_string(&code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.word()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), code);
        }
        assert_eq!(ErrorCode::from_word("from-the-future"), ErrorCode::Refused(RefusalCode::Unrecognised));
    }

    #[test]
    fn each_code_has_the_status_of_an_error() {
        for code in ErrorCode::all() {
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }

    /// Clients repeat a request after 503 and give up after 4xx, so a temporary refusal must be 503.
    #[test]
    fn a_retryable_refusal_is_503() {
        for code in [
            ErrorCode::CoreAway,
            ErrorCode::CoreCut,
            ErrorCode::VmsUnknown,
            RefusalCode::Stopping.into(),
            RefusalCode::SettingUp.into(),
        ] {
            assert_eq!(code.http_status(), 503, "{code}");
        }
    }

    #[test]
    fn the_body_of_an_error_is_a_sentence_and_a_word() {
        let error = ApiError::new(RefusalCode::NameExists, "It is taken.");
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(text, r#"{"error":"It is taken.","code":"name-exists"}"#);
        assert_eq!(serde_json::from_str::<ApiError>(&text).unwrap(), error);
    }
}
