//! The web pages. They are rendered on the server; reading them and setup need no JavaScript. They work on a phone and
//! during a fail-over.
//!
//! Three small scripts add the rest: `live.js` updates a page after server-sent events, `act.js` calls the API from buttons,
//! forms and uploads, `console.js` shows a VM's serial line over a WebSocket.
//!
//! This crate must never know how an operation is carried out: it calls a [`Service`] and shows the reply in the same
//! sentences as the serial line and the CLI.
//!
//! **Invariants.** Without a session a browser gets only the names of pair and node, the status sentence, the missing
//! conditions, the alarms and the wizard. The templates escape every text that came from outside. A page loads nothing from
//! another host.

mod assets;
mod filters;
mod pages;
mod pending_passwords;
mod session;
mod setup;
mod state;

use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, extract::Request, routing::get};
use dyad_api::Service;
use std::sync::Arc;

/// The Content-Security-Policy: it allows resources from this node only and no inline script, so that a script in the name
/// of an object is not run.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'";

/// The router for all pages and their scripts; `dyad-node` serves it on the same port as the API.
pub fn router(service: Arc<dyn Service>) -> Router {
    let wizard = setup::Wizard { service: service.clone(), pending_passwords: Arc::default() };
    let wizard = Router::new().route("/setup", get(setup::begin).post(setup::answer)).with_state(wizard);
    Router::new()
        .route("/", get(pages::status))
        .route("/login", get(pages::login))
        .route("/vms", get(pages::vms))
        .route("/vms/{name}/console", get(pages::console))
        .route("/volumes", get(pages::volumes))
        .route("/timeline", get(pages::timeline))
        .route("/setup/progress", get(setup::progress))
        .route("/assets/{name}", get(assets::serve))
        .with_state(service)
        .merge(wizard)
        .layer(from_fn(set_headers))
}

async fn set_headers(request: Request, next: Next) -> Response {
    let asset = request.uri().path().starts_with("/assets/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let cache = if asset { "max-age=300" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
