//! Handlers of volumes, and of the upload of images.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
};
use dyad_api::{ApiError, CreateVolume, ErrorCode, ImportReply, Service, VolumeView};
use serde::Deserialize;

use super::reply::{HandlerResult, parse_json};
use crate::{NodeHandle, import};

pub(super) async fn list(State(node): State<Arc<NodeHandle>>) -> HandlerResult<Json<Vec<VolumeView>>> {
    Ok(Json(node.volumes().await?))
}

pub(super) async fn create(
    State(node): State<Arc<NodeHandle>>,
    body: Bytes,
) -> HandlerResult<(StatusCode, Json<VolumeView>)> {
    let volume = node.create_volume(parse_json::<CreateVolume>(&body)?).await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

pub(super) async fn remove(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> HandlerResult<StatusCode> {
    node.delete_volume(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct ImportQuery {
    sha256: Option<String>,
}

pub(super) async fn import(
    State(node): State<Arc<NodeHandle>>,
    Path(name): Path<String>,
    Query(expected): Query<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult<Json<ImportReply>> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let no_length =
        || ApiError::new(ErrorCode::NoLength, "The request needs a Content-Length: the length of the image.");
    let bytes = length.ok_or_else(no_length)?;
    Ok(Json(import::import(&node, &name, bytes, expected.sha256.as_deref(), body).await?))
}
