//! Enrolment of a pair at a witness.

use crate::identity::{NodeIdentity, Witness};
use crate::refusal;
use dyad_control::{Enrol, Refusal};
use dyad_link::{PairId, tls};
use dyad_types::{NodeId, WITNESS_PORT};
use dyad_witness::client::{self, EnrolError, OneTimeCode};
use dyad_witness::protocol;
use std::time::{Duration, Instant};

/// Period for which [`enrol_with_retries`] repeats its attempts. The DHCP client waits 10 s for a server, so this node
/// normally has an address by then.
const ENROL_RETRY_TIMEOUT: Duration = Duration::from_secs(12);
/// Delay between two attempts to reach the witness.
const ENROL_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Enrols this pair at the witness `at.address` with the one-time code `at.code`. Tries once.
///
/// # Errors
/// The witness is not reached or refuses; the refusal names the reason and the remedy.
pub async fn enrol(identity: NodeIdentity, tls: tls::TlsIdentity, at: Enrol) -> Result<Witness, Refusal> {
    let enrolled = try_to_enrol(&identity, &tls, at).await;
    enrolled.map_err(|e| refusal::of_enrolment(&e))
}

/// Enrols this pair as [`enrol`] does, and repeats that for up to 12 s while the witness is not reached: at setup this
/// node may have no address yet.
///
/// # Errors
/// As [`enrol`].
pub async fn enrol_with_retries(
    identity: &NodeIdentity,
    tls: &tls::TlsIdentity,
    at: &Enrol,
) -> Result<Witness, Refusal> {
    let deadline = Instant::now() + ENROL_RETRY_TIMEOUT;
    loop {
        match try_to_enrol(identity, tls, at.clone()).await {
            Err(EnrolError::Unreachable { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(ENROL_RETRY_INTERVAL).await
            }
            other => return other.map_err(|e| refusal::of_enrolment(&e)),
        }
    }
}

async fn try_to_enrol(identity: &NodeIdentity, tls: &tls::TlsIdentity, at: Enrol) -> Result<Witness, EnrolError> {
    let Enrol { address, code } = at;
    let address = if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        address
    } else {
        format!("{address}:{WITNESS_PORT}")
    };
    let peer = identity.peer.as_ref().and_then(|peer| peer.fingerprint.parse().ok());
    let keys = match identity.me {
        NodeId::A => [Some(tls.fingerprint()), peer],
        NodeId::B => [peer, Some(tls.fingerprint())],
    };
    let ask =
        protocol::Enrol { pair: PairId(identity.pair_number()), name: identity.pair.clone(), node: identity.me, keys };
    let enrolment = client::enrol(&address, OneTimeCode(&code), tls, &ask, Duration::from_secs(5)).await?;
    let id = enrolment.enrolled.witness.0;
    let witness = Witness {
        address,
        fingerprint: enrolment.fingerprint.to_string(),
        id: format!("{id:032x}"),
        incarnation: enrolment.enrolled.incarnation,
    };
    Ok(witness)
}
