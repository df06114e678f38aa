//! The one shape of an error.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused. Nothing was changed by it, unless the sentence says that this is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// One sentence for people.
    pub error: String,
    /// A short stable word for programs, such as `name-exists`.
    pub code: String,
    /// HTTP status; not part of the body.
    #[serde(skip)]
    #[schema(ignore)]
    pub status: u16,
}

impl ApiError {
    /// A refusal with this HTTP status.
    #[must_use]
    pub fn new(status: u16, code: &str, sentence: impl Into<String>) -> Self {
        ApiError { error: sentence.into(), code: code.into(), status }
    }

    /// Nobody is logged in.
    #[must_use]
    pub fn login_needed() -> Self {
        Self::new(401, "login-needed", "Log in first: this needs the administrator's password.")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for ApiError {}

impl From<dyad_control::Refusal> for ApiError {
    fn from(refusal: dyad_control::Refusal) -> Self {
        Self::new(refusal.code.http_status(), refusal.code.word(), refusal.sentence)
    }
}

impl From<dyad_desired::Refusal> for ApiError {
    fn from(refusal: dyad_desired::Refusal) -> Self {
        dyad_control::Refusal::from(refusal).into()
    }
}

impl From<dyad_wizard::Problem> for ApiError {
    fn from(problem: dyad_wizard::Problem) -> Self {
        // A name is refused by the rules of the document, every other answer because it must be given differently.
        let status = match &problem {
            dyad_wizard::Problem::Name(refusal) => dyad_control::RefusalCode::from(refusal).http_status(),
            _ => 422,
        };
        Self::new(status, problem.code(), problem.to_string())
    }
}

impl From<dyad_control::ClientError> for ApiError {
    fn from(error: dyad_control::ClientError) -> Self {
        use dyad_control::ClientError;
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::Unreachable { .. } => Self::new(503, "core-away", dyad_control::CORE_AWAY),
            ClientError::Cut(_) => Self::new(
                503,
                "core-cut",
                "The storage service of this node restarted in the middle: look whether the change was made, then try again.",
            ),
            ClientError::Unknown(_) => Self::new(
                500,
                "core-unknown",
                "The storage service of this node speaks another version: restart this node.",
            ),
        }
    }
}
