//! The routes over axum: thin, each asks the [`NodeHandle`] and puts its answer on the wire.

mod auth;
mod drain;
mod events;
mod metrics;
mod setup;
mod vms;
mod volumes;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    middleware::{from_fn, map_response},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use dyad_api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;

use crate::NodeHandle;

/// An [`ApiError`] as a response.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ApiError);

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

/// The way in of a handler that answers JSON.
pub(crate) type Reply<T> = Result<T, Failure>;

/// The whole site: the API, and `pages` for everything else.
pub fn site(node: Arc<NodeHandle>, pages: Router) -> Router {
    let api = Router::new()
        .route("/api/v1/setup", get(setup::read).post(setup::begin))
        .route("/api/v1/setup/offers", get(setup::offers))
        .route("/api/v1/setup/erase-disk", post(setup::erase_disk))
        .route("/api/v1/erase", post(setup::erase))
        .route("/api/v1/login", post(auth::login))
        .route("/api/v1/logout", post(auth::logout))
        .route("/api/v1/status", get(events::status))
        .route("/api/v1/events", get(events::follow))
        .route("/api/v1/timeline", get(events::timeline))
        .route("/api/v1/pairing-code", post(setup::pairing_code))
        .route("/api/v1/witness", post(setup::witness))
        .route("/api/v1/watchdog/prove", post(setup::prove_watchdog))
        .route("/api/v1/volumes", get(volumes::list).post(volumes::create))
        .route("/api/v1/volumes/{name}", delete(volumes::remove))
        .route("/api/v1/volumes/{name}/content", put(volumes::import))
        .route("/api/v1/vms", get(vms::list).post(vms::create))
        .route("/api/v1/vms/{name}", delete(vms::remove))
        .route("/api/v1/vms/{name}/start", post(vms::start))
        .route("/api/v1/vms/{name}/stop", post(vms::stop))
        .route("/api/v1/vms/{name}/kill", post(vms::kill))
        .route("/api/v1/vms/{name}/serial", get(vms::serial))
        .route("/api/v1/vms/{name}/serial/log", get(vms::serial_log))
        .route("/api/{*rest}", axum::routing::any(unknown))
        .route("/metrics", get(metrics::metrics))
        .with_state(node);
    api.merge(pages).layer(map_response(guard)).layer(from_fn(drain::drain))
}

async fn unknown() -> Failure {
    Failure(ApiError::new(ErrorCode::UnknownRoute, "The API has no such route: see the OpenAPI document."))
}

/// Headers that keep a browser from doing anything but showing our own pages.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A JSON body, or the sentence that says what is wrong with it.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_end_matches('.');
        ApiError::new(ErrorCode::Unreadable, format!("The request cannot be read: {what}."))
    })
}
