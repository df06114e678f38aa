//! The first contact of two machines, by a short one-time code that a person types.
//!
//! Both sides make a TLS connection on which neither key is trusted yet, then run SPAKE2 with the code as password and
//! with roles and fingerprints as identities. A machine in between has other keys, so the confirmations on its two
//! connections differ. It can guess one code per connection, [`MAX_TRIES`] in all. The payloads after the confirmation
//! are sent on the same TLS connection.
//!
//! ```text
//! joiner                                    host (opened a code)
//! Start{version, purpose, label, spake}  ──►  counts a try, refuses: no code, expired, too many
//!                                        ◄──  Answer{spake} | Fail
//! Confirm{mac}                           ──►  wrong: Fail; right: marks the code as used
//!                                        ◄──  Confirm{mac} | Fail
//! Payload…                               ◄─►  Payload…
//! ```
//!
//! **Invariants**
//! * A try is counted before the host sends anything that depends on the code.
//! * No payload is sent or delivered before both sides have confirmed.

mod codes;
mod confirm;
mod error;
mod purpose;

use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

pub use codes::{CODE_VALIDITY_PERIOD, CodeForm, Codes, OpenCode};
pub use error::{MAX_TRIES, PairingError, STEP_TIMEOUT};
pub use purpose::Purpose;

use crate::Fingerprint;
use crate::frame::{FrameError, MAX_PAYLOAD, from_payload, to_payload};
use crate::tls::{Channel, Protocol, TlsIdentity, Trust, accept, client_config, connect, server_config};
use confirm::{Exchange, PairingRole};

const VERSION: u16 = 1;
const FRAME_START: u16 = 0x0201;
const FRAME_ANSWER: u16 = 0x0202;
const FRAME_CONFIRM: u16 = 0x0203;
const FRAME_FAIL: u16 = 0x0204;
const FRAME_PAYLOAD: u16 = 0x0205;
/// Maximum length of a frame before the confirmation, in bytes.
const MAX_UNCONFIRMED_BYTES: usize = 1024;

/// The joiner's first message.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    version: u16,
    purpose: Purpose,
    label: String,
    /// The joiner's SPAKE2 message.
    spake: Vec<u8>,
}

/// The reason for which the host refuses, sent to the joiner, which returns the error of the same name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum WireFailure {
    WrongCode,
    Expired,
    NoCodeOpen,
    TooManyTries,
    Version,
    Purpose,
}

impl From<WireFailure> for PairingError {
    fn from(fail: WireFailure) -> Self {
        match fail {
            WireFailure::WrongCode => Self::WrongCode,
            WireFailure::Expired => Self::Expired,
            WireFailure::NoCodeOpen => Self::NoCodeOpen,
            WireFailure::TooManyTries => Self::TooManyTries,
            WireFailure::Version => Self::Version,
            WireFailure::Purpose => Self::Purpose,
        }
    }
}

impl PairingError {
    /// The reason to send to the joiner; `None` if the error is not about the code.
    fn wire_failure(&self) -> Option<WireFailure> {
        Some(match self {
            Self::WrongCode => WireFailure::WrongCode,
            Self::Expired => WireFailure::Expired,
            Self::NoCodeOpen => WireFailure::NoCodeOpen,
            Self::TooManyTries => WireFailure::TooManyTries,
            Self::Version => WireFailure::Version,
            Self::Purpose => WireFailure::Purpose,
            Self::Timeout | Self::Tls(_) | Self::Frame(_) => return None,
        })
    }
}

/// A connection between two machines that have proven to hold the same code.
#[derive(Debug)]
pub struct Paired {
    channel: Channel,
}

impl Paired {
    /// The fingerprint of the other side's key, to be pinned.
    #[must_use]
    pub fn peer(&self) -> Fingerprint {
        self.channel.peer
    }

    /// Sends one payload of at most 2 MiB.
    ///
    /// # Errors
    /// [`PairingError::Frame`] if the connection fails, [`PairingError::Timeout`] after [`STEP_TIMEOUT`].
    pub async fn send_bytes(&mut self, payload: &[u8]) -> Result<(), PairingError> {
        with_step_timeout(self.channel.writer.send_bytes(FRAME_PAYLOAD, payload)).await
    }

    /// Receives one payload.
    ///
    /// # Errors
    /// [`PairingError::Frame`] if the connection fails, [`PairingError::Timeout`] after [`STEP_TIMEOUT`].
    pub async fn receive_bytes(&mut self) -> Result<Bytes, PairingError> {
        let frame = with_step_timeout(self.channel.reader.next_required()).await?;
        if frame.kind != FRAME_PAYLOAD {
            return Err(FrameError::Unexpected { kind: frame.kind }.into());
        }
        Ok(frame.payload)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// As [`Self::send_bytes`].
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), PairingError> {
        let payload = to_payload(message)?;
        self.send_bytes(&payload).await
    }

    /// Receives one message.
    ///
    /// # Errors
    /// As [`Self::receive_bytes`]; [`FrameError::Message`] if the payload is not a `T`.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, PairingError> {
        Ok(from_payload(&self.receive_bytes().await?)?)
    }

    /// Sends what is buffered, then the TLS alert `close_notify`, so that the other side receives the last payload.
    ///
    /// # Errors
    /// As [`Self::send_bytes`].
    pub async fn close(mut self) -> Result<(), PairingError> {
        with_step_timeout(self.channel.writer.close()).await
    }
}

/// Runs one step of the exchange within [`STEP_TIMEOUT`].
async fn with_step_timeout<T>(work: impl Future<Output = Result<T, FrameError>>) -> Result<T, PairingError> {
    match tokio::time::timeout(STEP_TIMEOUT, work).await {
        Ok(outcome) => outcome.map_err(PairingError::Frame),
        Err(_) => Err(PairingError::Timeout),
    }
}

/// Pairs with the host at the other end of `stream`, with the key of `identity` and the `code` that a person typed.
/// Case, spaces and hyphens in the code are ignored; O is read as 0, I and L as 1.
///
/// # Errors
/// Any [`PairingError`].
pub async fn join(
    stream: TcpStream,
    identity: &TlsIdentity,
    code: &str,
    purpose: Purpose,
) -> Result<Paired, PairingError> {
    let config = client_config(identity, Trust::AnyKey, Protocol::Pairing)?;
    let mut channel = connect(stream, config, STEP_TIMEOUT).await?;
    let typed = codes::parse(code);
    let exchange = Exchange::new(&typed.secret, purpose, PairingRole::Joiner, identity.fingerprint(), &channel);
    let start = Start { version: VERSION, purpose, label: typed.label.to_string(), spake: exchange.message().to_vec() };
    with_step_timeout(channel.writer.send(FRAME_START, &start)).await?;
    let answer: Vec<u8> = receive_from_host(&mut channel, FRAME_ANSWER).await?;
    // A host that knows no code may send any bytes; bytes that are no SPAKE2 message count as a wrong code.
    let keys = exchange.finish(&answer).ok_or(PairingError::WrongCode)?;
    with_step_timeout(channel.writer.send(FRAME_CONFIRM, &keys.own_proof())).await?;
    let theirs: [u8; 32] = receive_from_host(&mut channel, FRAME_CONFIRM).await?;
    if !keys.accepts(&theirs) {
        return Err(PairingError::WrongCode);
    }
    channel.reader.set_limit(MAX_PAYLOAD);
    Ok(Paired { channel })
}

/// Receives the host's next message, of this kind; if the host refuses, the error that it names.
async fn receive_from_host<T: DeserializeOwned>(channel: &mut Channel, kind: u16) -> Result<T, PairingError> {
    channel.reader.set_limit(MAX_UNCONFIRMED_BYTES);
    let frame = with_step_timeout(channel.reader.next_required()).await?;
    if frame.kind == FRAME_FAIL {
        return Err(frame.message::<WireFailure>()?.into());
    }
    Ok(frame.expect(kind)?)
}

/// Pairs with the joiner at the other end of `stream`, which must know an open code of `codes`.
///
/// # Errors
/// Any [`PairingError`]; the joiner gets the same error if it is about the code.
pub async fn host(
    stream: TcpStream,
    identity: &TlsIdentity,
    codes: &Codes,
    purpose: Purpose,
) -> Result<Paired, PairingError> {
    let config = server_config(identity, Trust::AnyKey, &[Protocol::Pairing])?;
    host_on(accept(stream, config, STEP_TIMEOUT).await?, identity.fingerprint(), codes, purpose).await
}

/// As [`host`], on a TLS connection that was accepted with [`Trust::AnyKey`] and the key `own`, and that negotiated
/// [`Protocol::Pairing`].
///
/// # Errors
/// As [`host`].
pub async fn host_on(
    mut channel: Channel,
    own: Fingerprint,
    codes: &Codes,
    purpose: Purpose,
) -> Result<Paired, PairingError> {
    match host_steps(&mut channel, own, codes, purpose).await {
        Ok(()) => Ok(Paired { channel }),
        Err(error) => {
            if let Some(fail) = error.wire_failure() {
                // Errors are ignored: a joiner that has closed the connection has its own error.
                let _ = with_step_timeout(channel.writer.send(FRAME_FAIL, &fail)).await;
                let _ = with_step_timeout(channel.writer.close()).await;
            }
            Err(error)
        }
    }
}

/// The host's side of the exchange, up to and including its confirmation.
async fn host_steps(
    channel: &mut Channel,
    own: Fingerprint,
    codes: &Codes,
    purpose: Purpose,
) -> Result<(), PairingError> {
    channel.reader.set_limit(MAX_UNCONFIRMED_BYTES);
    let start: Start = with_step_timeout(channel.reader.next_required()).await?.expect(FRAME_START)?;
    if start.version != VERSION {
        return Err(PairingError::Version);
    }
    if start.purpose != purpose {
        return Err(PairingError::Purpose);
    }
    let attempt = codes.attempt(&start.label, Instant::now())?;
    let exchange = Exchange::new(&attempt.secret, purpose, PairingRole::Host, own, channel);
    let answer = exchange.message().to_vec();
    let keys = exchange.finish(&start.spake).ok_or(PairingError::WrongCode)?;
    with_step_timeout(channel.writer.send(FRAME_ANSWER, &answer)).await?;
    let theirs: [u8; 32] = with_step_timeout(channel.reader.next_required()).await?.expect(FRAME_CONFIRM)?;
    if !keys.accepts(&theirs) {
        return Err(codes.wrong_try_error(&start.label));
    }
    // Of two concurrent joiners with the right code, the second one finds the code used.
    codes.mark_used(&start.label, attempt.generation)?;
    with_step_timeout(channel.writer.send(FRAME_CONFIRM, &keys.own_proof())).await?;
    channel.reader.set_limit(MAX_PAYLOAD);
    Ok(())
}
