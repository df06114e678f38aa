//! Login, logout, and the proof that somebody is logged in.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{AppendHeaders, IntoResponse},
};
use dyad_api::{ApiError, COOKIE, LoginReply, LoginRequest, Service, Source};

use super::{Failure, Reply, json};
use crate::NodeHandle;

/// A request of somebody who is logged in. A handler that takes it answers nobody else.
pub(crate) struct LoggedIn {
    token: String,
}

/// Whether somebody is logged in, for routes that answer everybody.
pub(crate) struct Maybe(pub(crate) bool);

impl FromRequestParts<Arc<NodeHandle>> for LoggedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<NodeHandle>) -> Result<Self, Failure> {
        let token = token(&parts.headers).ok_or_else(ApiError::login_needed)?;
        node.session(&token).await?;
        Ok(LoggedIn { token })
    }
}

impl FromRequestParts<Arc<NodeHandle>> for Maybe {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<NodeHandle>) -> Result<Self, Failure> {
        match token(&parts.headers) {
            Some(token) => Ok(Maybe(node.session(&token).await.is_ok())),
            None => Ok(Maybe(false)),
        }
    }
}

/// Whom the request comes from: the server tells for connections over the network.
pub(super) struct Caller(Source);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Caller(parts.extensions.get().copied().unwrap_or(Source::Local)))
    }
}

/// The token of a request: from the `Authorization` header, or from the cookie.
fn token(headers: &HeaderMap) -> Option<String> {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if let Some(token) = bearer {
        return Some(token.trim().to_owned());
    }
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token.to_owned())
}

fn cookie(token: &str, lasting: &str) -> AppendHeaders<[(header::HeaderName, String); 1]> {
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Strict{lasting}");
    AppendHeaders([(header::SET_COOKIE, cookie)])
}

pub(super) async fn login(
    State(node): State<Arc<NodeHandle>>,
    Caller(source): Caller,
    body: Bytes,
) -> Reply<impl IntoResponse> {
    let LoginRequest { password } = json(&body)?;
    let LoginReply { token } = node.login(source, &password).await?;
    Ok((cookie(&token, ""), Json(LoginReply { token })))
}

pub(super) async fn logout(State(node): State<Arc<NodeHandle>>, who: LoggedIn) -> Reply<impl IntoResponse> {
    node.logout(&who.token).await?;
    Ok((StatusCode::NO_CONTENT, cookie("", "; Max-Age=0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> Option<String> {
        token(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn the_token_comes_from_header_or_cookie() {
        assert_eq!(with(header::AUTHORIZATION, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(with(header::COOKIE, "a=b; dyad_session=abc; c=d").as_deref(), Some("abc"));
        assert_eq!(with(header::COOKIE, "xdyad_session=abc"), None);
    }
}
