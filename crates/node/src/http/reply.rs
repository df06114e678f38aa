//! Functions that all handlers use: the response with an error, and the parsing of a JSON body.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use dyad_api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;

/// An [`ApiError`] as an HTTP response.
#[derive(Debug)]
pub(crate) struct ErrorResponse(pub(crate) ApiError);

impl<E: Into<ApiError>> From<E> for ErrorResponse {
    fn from(error: E) -> Self {
        ErrorResponse(error.into())
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

pub(crate) type HandlerResult<T> = Result<T, ErrorResponse>;

/// Parses a JSON body. The refusal names the first error in it.
pub(crate) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_end_matches('.');
        ApiError::new(ErrorCode::Unreadable, format!("The request cannot be read: {what}."))
    })
}
