//! Handlers of login and logout, and the check of a request's session.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::{AppendHeaders, IntoResponse, Response},
};
use dyad_api::{ApiError, LoginReply, LoginRequest, SESSION_COOKIE, Service, Session, Source};

use super::reply::{ErrorResponse, HandlerResult, parse_json};
use crate::NodeHandle;

/// The session of a request, and its token. [`require_session`] stores it in the request for the handler.
#[derive(Clone)]
pub(super) struct LoggedIn {
    _session: Session,
    token: String,
}

/// Middleware of each route with `Permission::Session`: refuses a request without a valid session.
pub(super) async fn require_session(
    State(node): State<Arc<NodeHandle>>,
    mut request: Request,
    next: Next,
) -> HandlerResult<Response> {
    let token = token(request.headers()).ok_or_else(ApiError::login_needed)?;
    let session = node.session(&token).await?;
    request.extensions_mut().insert(LoggedIn { _session: session, token });
    Ok(next.run(request).await)
}

impl<S: Sync> FromRequestParts<S> for LoggedIn {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        parts.extensions.get().cloned().ok_or_else(|| ApiError::login_needed().into())
    }
}

/// Whether a request has a valid session, for the public routes that return more with one.
pub(super) struct HasSession(pub(super) bool);

impl FromRequestParts<Arc<NodeHandle>> for HasSession {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<NodeHandle>) -> Result<Self, Infallible> {
        match token(&parts.headers) {
            Some(token) => Ok(HasSession(node.session(&token).await.is_ok())),
            None => Ok(HasSession(false)),
        }
    }
}

/// The source of a request. The server sets it for connections over the network; a request without one came over the local
/// socket.
pub(super) struct Caller(Source);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Caller(parts.extensions.get().copied().unwrap_or(Source::Local)))
    }
}

/// The session token of a request: that of the `Authorization` header, otherwise that of the cookie.
fn token(headers: &HeaderMap) -> Option<String> {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if let Some(token) = bearer {
        return Some(token.trim().to_owned());
    }
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token.to_owned())
}

/// The header that sets the session's cookie; without a token it deletes the cookie.
fn cookie(token: Option<&str>) -> AppendHeaders<[(header::HeaderName, String); 1]> {
    let (token, max_age) = token.map_or(("", "; Max-Age=0"), |token| (token, ""));
    let cookie = format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Strict{max_age}");
    AppendHeaders([(header::SET_COOKIE, cookie)])
}

pub(super) async fn login(
    State(node): State<Arc<NodeHandle>>,
    Caller(source): Caller,
    body: Bytes,
) -> HandlerResult<impl IntoResponse> {
    let LoginRequest { password } = parse_json(&body)?;
    let LoginReply { token } = node.login(source, &password).await?;
    Ok((cookie(Some(&token)), Json(LoginReply { token })))
}

pub(super) async fn logout(State(node): State<Arc<NodeHandle>>, session: LoggedIn) -> HandlerResult<impl IntoResponse> {
    node.logout(&session.token).await?;
    Ok((StatusCode::NO_CONTENT, cookie(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> Option<String> {
        token(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn the_token_is_read_from_the_header_or_the_cookie() {
        assert_eq!(with(header::AUTHORIZATION, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(with(header::COOKIE, "a=b; dyad_session=abc; c=d").as_deref(), Some("abc"));
        assert_eq!(with(header::COOKIE, "xdyad_session=abc"), None);
    }
}
