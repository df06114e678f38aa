//! Finding the session of a browser by its cookie.

use crate::state::SharedService;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use dyad_api::{SESSION_COOKIE, Session};

/// The session whose token is in the request's cookie, if it is valid.
pub(crate) async fn find(service: &SharedService, headers: &HeaderMap) -> Option<Session> {
    let token = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == SESSION_COOKIE)?
        .1
        .to_owned();
    service.session(&token).await.ok()
}

/// The session of a request; without a valid one, the response that redirects the browser to the login page.
pub(crate) async fn require(service: &SharedService, headers: &HeaderMap) -> Result<Session, Response> {
    find(service, headers).await.ok_or_else(|| Redirect::to("/login").into_response())
}
