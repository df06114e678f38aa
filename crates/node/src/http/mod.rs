//! The HTTP handlers of the API. The router is built from the route table of `dyad-api`. A handler only parses the request,
//! calls the [`NodeHandle`] and returns its reply.

mod auth;
mod drain;
mod events;
mod metrics;
mod reply;
mod setup;
mod vms;
mod volumes;

use std::sync::Arc;

use self::reply::ErrorResponse;
use crate::NodeHandle;
use axum::{
    Router,
    http::{HeaderValue, header},
    middleware::{from_fn, from_fn_with_state, map_response},
    response::Response,
    routing::{MethodFilter, MethodRouter, any, on},
};
use dyad_api::{ApiError, ErrorCode, Method, Permission, ROUTES, Route, RouteId};

/// The router for all requests: the routes of the API, and `pages` for the other paths.
pub fn site(node: Arc<NodeHandle>, pages: Router) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |site, route| site.route(route.path, endpoint(route, &node)));
    let api = routes.route("/api/{*rest}", any(unknown_route)).with_state(node);
    api.merge(pages).layer(map_response(security_headers)).layer(from_fn(drain::drain))
}

/// The handler of a route, behind the check of the permission that the table names. No other code adds a handler of the API
/// to the router.
fn endpoint(route: &Route, node: &Arc<NodeHandle>) -> MethodRouter<Arc<NodeHandle>> {
    let method = match route.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    };
    let handler = match route.id {
        RouteId::GetSetup => on(method, setup::read),
        RouteId::BeginSetup => on(method, setup::begin),
        RouteId::ListOffers => on(method, setup::offers),
        RouteId::Login => on(method, auth::login),
        RouteId::Logout => on(method, auth::logout),
        RouteId::GetStatus => on(method, events::status),
        RouteId::WatchStatus => on(method, events::stream_status_and_vms),
        RouteId::GetTimeline => on(method, events::timeline),
        RouteId::OpenPairingCode => on(method, setup::pairing_code),
        RouteId::EnrolWitness => on(method, setup::witness),
        RouteId::ProveWatchdog => on(method, setup::prove_watchdog),
        RouteId::EraseNode => on(method, setup::erase),
        RouteId::EraseDisk => on(method, setup::erase_disk),
        RouteId::ListVolumes => on(method, volumes::list),
        RouteId::CreateVolume => on(method, volumes::create),
        RouteId::DeleteVolume => on(method, volumes::remove),
        RouteId::ImportVolume => on(method, volumes::import),
        RouteId::ListVms => on(method, vms::list),
        RouteId::CreateVm => on(method, vms::create),
        RouteId::DeleteVm => on(method, vms::remove),
        RouteId::StartVm => on(method, vms::start),
        RouteId::StopVm => on(method, vms::stop),
        RouteId::KillVm => on(method, vms::kill),
        RouteId::AttachSerial => on(method, vms::serial),
        RouteId::ReadSerialLog => on(method, vms::serial_log),
        RouteId::GetMetrics => on(method, metrics::metrics),
    };
    match route.permission {
        Permission::Public => handler,
        Permission::Session => handler.route_layer(from_fn_with_state(node.clone(), auth::require_session)),
    }
}

async fn unknown_route() -> ErrorResponse {
    ErrorResponse(ApiError::new(ErrorCode::UnknownRoute, "The API has no such route: see the OpenAPI document."))
}

/// Adds the headers with which a browser loads content only from this node and stores no copy. A header that a page has set
/// already is not changed.
async fn security_headers(mut response: Response) -> Response {
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
