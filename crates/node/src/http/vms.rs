//! Handlers of VMs and of their serial lines.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State, WebSocketUpgrade},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dyad_api::{ApiError, CreateVm, ErrorCode, Service, VmView};
use serde::Deserialize;

use super::reply::{ErrorResponse, HandlerResult, parse_json};
use crate::{NodeHandle, serial};

pub(super) async fn list(State(node): State<Arc<NodeHandle>>) -> HandlerResult<Json<Vec<VmView>>> {
    Ok(Json(node.vms().await?))
}

pub(super) async fn create(
    State(node): State<Arc<NodeHandle>>,
    body: Bytes,
) -> HandlerResult<(StatusCode, Json<VmView>)> {
    let vm = node.create_vm(parse_json::<CreateVm>(&body)?).await?;
    Ok((StatusCode::CREATED, Json(vm)))
}

pub(super) async fn remove(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> HandlerResult<StatusCode> {
    node.delete_vm(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> HandlerResult<StatusCode> {
    node.start_vm(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> HandlerResult<StatusCode> {
    node.stop_vm(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn kill(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> HandlerResult<StatusCode> {
    node.kill_vm(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn serial(
    State(node): State<Arc<NodeHandle>>,
    Path(name): Path<String>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> HandlerResult<Response> {
    let no_upgrade = |_| ApiError::new(ErrorCode::NoWebsocket, "The serial line needs a WebSocket.");
    let upgrade = upgrade.map_err(no_upgrade)?;
    node.require_on_this_node(&name).await?;
    let serial = serial::vm_serial_line(&node.snapshot(), &name)?;
    Ok(upgrade.on_upgrade(|browser| serial::bridge(browser, serial)))
}

#[derive(Deserialize)]
pub(super) struct SerialLogQuery {
    #[serde(default)]
    follow: u8,
}

pub(super) async fn serial_log(
    State(node): State<Arc<NodeHandle>>,
    Path(name): Path<String>,
    Query(SerialLogQuery { follow }): Query<SerialLogQuery>,
) -> Result<Response, ErrorResponse> {
    node.require_on_this_node(&name).await?;
    let text = serial::log(node.follow(), name, follow == 1);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(text)).into_response())
}
