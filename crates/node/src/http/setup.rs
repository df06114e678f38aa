//! Handlers of setup, pairing code, witness, watchdog, and erasing.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use dyad_api::{EraseDiskRequest, EraseRequest, OfferView, PairingCodeReply, Service, SetupReply, WitnessRequest};

use super::reply::{HandlerResult, parse_json};
use crate::NodeHandle;

pub(super) async fn read(State(node): State<Arc<NodeHandle>>) -> HandlerResult<Json<SetupReply>> {
    Ok(Json(node.setup().await?))
}

pub(super) async fn begin(
    State(node): State<Arc<NodeHandle>>,
    body: Bytes,
) -> HandlerResult<(StatusCode, Json<SetupReply>)> {
    // The wizard's parser checks keys and values, so the refusals are the same as for a seed file.
    let answers = dyad_wizard::from_json(&body, &node.surroundings().await?)?;
    Ok((StatusCode::ACCEPTED, Json(node.begin_setup(answers).await?)))
}

pub(super) async fn offers(State(node): State<Arc<NodeHandle>>) -> HandlerResult<Json<Vec<OfferView>>> {
    Ok(Json(node.offers().await?))
}

pub(super) async fn pairing_code(State(node): State<Arc<NodeHandle>>) -> HandlerResult<Json<PairingCodeReply>> {
    Ok(Json(node.pairing_code().await?))
}

pub(super) async fn witness(State(node): State<Arc<NodeHandle>>, body: Bytes) -> HandlerResult<StatusCode> {
    node.witness(parse_json::<WitnessRequest>(&body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn prove_watchdog(State(node): State<Arc<NodeHandle>>) -> HandlerResult<StatusCode> {
    node.prove_watchdog().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn erase(State(node): State<Arc<NodeHandle>>, body: Bytes) -> HandlerResult<StatusCode> {
    let EraseRequest { confirm } = parse_json(&body)?;
    node.erase(None, confirm).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn erase_disk(State(node): State<Arc<NodeHandle>>, body: Bytes) -> HandlerResult<StatusCode> {
    let EraseDiskRequest { disk, confirm } = parse_json(&body)?;
    node.erase(Some(disk), confirm).await?;
    Ok(StatusCode::NO_CONTENT)
}
