//! Who is looking at a page.

use crate::Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use dyad_api::{COOKIE, Session};

/// The session of the request's cookie, if it is valid.
pub(crate) async fn of(service: &Shared, headers: &HeaderMap) -> Option<Session> {
    let token = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)?
        .1
        .to_owned();
    service.session(&token).await.ok()
}

/// The session, or the way to the login page.
pub(crate) async fn need(service: &Shared, headers: &HeaderMap) -> Result<Session, Response> {
    of(service, headers).await.ok_or_else(|| Redirect::to("/login").into_response())
}
