//! First contact of two machines, by a short one-time code that a person carries between them.
//!
//! Both sides make a TLS connection on which neither key is trusted yet, then run SPAKE2 with the
//! code as password and both fingerprints and roles as identities. A machine in between has other
//! keys, so its two halves never agree; and it may try one code per connection, five in all. What
//! follows the confirmation travels inside the same TLS connection.
//!
//! ```text
//! joiner                                    host (opened a code)
//! Start{version, purpose, label, spake}  ──►  counts a try, refuses: no code, expired, too many
//!                                        ◄──  Answer{spake} | Fail
//! Confirm{mac}                           ──►  wrong: Fail; right: the code is used up
//!                                        ◄──  Confirm{mac} | Fail
//! Payload…                               ◄─►  Payload…
//! ```
//!
//! **Invariants**
//! * A try is counted before the host says anything about the code.
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
use crate::tls::{Channel, Identity, Protocol, Trust, accept, client_config, connect, server_config};
use confirm::{Exchange, PairingRole};

const VERSION: u16 = 1;
const START: u16 = 0x0201;
const ANSWER: u16 = 0x0202;
const CONFIRM: u16 = 0x0203;
const FAIL: u16 = 0x0204;
const PAYLOAD: u16 = 0x0205;
/// Longest frame before the confirmation, in bytes.
const MAX_STEP: usize = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Start {
    version: u16,
    purpose: Purpose,
    label: String,
    spake: Vec<u8>,
}

/// Why the host goes no further; the joiner turns it into the error of the same name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Fail {
    WrongCode,
    Expired,
    NoCodeOpen,
    TooManyTries,
    Version,
    Purpose,
}

impl From<Fail> for PairingError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::WrongCode => Self::WrongCode,
            Fail::Expired => Self::Expired,
            Fail::NoCodeOpen => Self::NoCodeOpen,
            Fail::TooManyTries => Self::TooManyTries,
            Fail::Version => Self::Version,
            Fail::Purpose => Self::Purpose,
        }
    }
}

impl PairingError {
    /// What the host tells the joiner about its own error, if it is about the code.
    fn fail(&self) -> Option<Fail> {
        Some(match self {
            Self::WrongCode => Fail::WrongCode,
            Self::Expired => Fail::Expired,
            Self::NoCodeOpen => Fail::NoCodeOpen,
            Self::TooManyTries => Fail::TooManyTries,
            Self::Version => Fail::Version,
            Self::Purpose => Fail::Purpose,
            Self::Timeout | Self::Tls(_) | Self::Frame(_) => return None,
        })
    }
}

/// Two machines that know they hold the same code, and a private line between them.
#[derive(Debug)]
pub struct Paired {
    channel: Channel,
}

impl Paired {
    /// The other side's key, now worth pinning.
    #[must_use]
    pub fn peer(&self) -> Fingerprint {
        self.channel.peer
    }

    /// Sends one payload of at most 2 MiB.
    ///
    /// # Errors
    /// [`PairingError::Frame`], [`PairingError::Timeout`].
    pub async fn send_bytes(&mut self, payload: &[u8]) -> Result<(), PairingError> {
        step(self.channel.writer.send_bytes(PAYLOAD, payload)).await
    }

    /// Receives one payload.
    ///
    /// # Errors
    /// [`PairingError::Frame`], [`PairingError::Timeout`].
    pub async fn receive_bytes(&mut self) -> Result<Bytes, PairingError> {
        let frame = step(self.channel.reader.require()).await?;
        if frame.kind != PAYLOAD {
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
    /// As [`Self::receive_bytes`]; [`FrameError::Message`] if it is another message.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, PairingError> {
        Ok(from_payload(&self.receive_bytes().await?)?)
    }

    /// Ends the line in order, so that the last payload surely arrives.
    ///
    /// # Errors
    /// As [`Self::send_bytes`].
    pub async fn close(mut self) -> Result<(), PairingError> {
        step(self.channel.writer.close()).await
    }
}

async fn step<T>(work: impl Future<Output = Result<T, FrameError>>) -> Result<T, PairingError> {
    match tokio::time::timeout(STEP_TIMEOUT, work).await {
        Ok(outcome) => outcome.map_err(PairingError::Frame),
        Err(_) => Err(PairingError::Timeout),
    }
}

/// Pairs with the host at the other end of `stream`, as `identity`, with the `code` that a person
/// typed; small mistakes of writing (spaces, case) are forgiven.
///
/// # Errors
/// Any [`PairingError`].
pub async fn join(
    stream: TcpStream,
    identity: &Identity,
    code: &str,
    purpose: Purpose,
) -> Result<Paired, PairingError> {
    let config = client_config(identity, Trust::AnyKey, Protocol::Pairing)?;
    let mut channel = connect(stream, config, STEP_TIMEOUT).await?;
    let secret = codes::parse(code);
    let ends = Exchange::new(&secret.secret, purpose, PairingRole::Joiner, identity.fingerprint(), &channel);
    let start = Start { version: VERSION, purpose, label: secret.label.to_string(), spake: ends.message().to_vec() };
    step(channel.writer.send(START, &start)).await?;
    let answer: Vec<u8> = reply(&mut channel, ANSWER).await?;
    // A message that is no point of the curve comes from no honest host.
    let keys = ends.finish(&answer).ok_or(PairingError::WrongCode)?;
    step(channel.writer.send(CONFIRM, &keys.ours())).await?;
    let theirs: [u8; 32] = reply(&mut channel, CONFIRM).await?;
    if !keys.fits(&theirs) {
        return Err(PairingError::WrongCode);
    }
    channel.reader.set_limit(MAX_PAYLOAD);
    Ok(Paired { channel })
}

/// The next message of the host, or the reason why there is none.
async fn reply<T: DeserializeOwned>(channel: &mut Channel, kind: u16) -> Result<T, PairingError> {
    channel.reader.set_limit(MAX_STEP);
    let frame = step(channel.reader.require()).await?;
    if frame.kind == FAIL {
        return Err(frame.message::<Fail>()?.into());
    }
    Ok(frame.expect(kind)?)
}

/// Pairs with whoever dialled `stream` and knows a code of `codes`.
///
/// # Errors
/// Any [`PairingError`]; the joiner is told the same if it is about the code.
pub async fn host(
    stream: TcpStream,
    identity: &Identity,
    codes: &Codes,
    purpose: Purpose,
) -> Result<Paired, PairingError> {
    let config = server_config(identity, Trust::AnyKey, &[Protocol::Pairing])?;
    host_on(accept(stream, config, STEP_TIMEOUT).await?, identity.fingerprint(), codes, purpose).await
}

/// As [`host`], on a TLS connection that was accepted with [`Trust::AnyKey`] as `own` and
/// negotiated [`Protocol::Pairing`].
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
            if let Some(fail) = error.fail() {
                // If the joiner is gone, its own error is as good.
                let _ = step(channel.writer.send(FAIL, &fail)).await;
                let _ = step(channel.writer.close()).await;
            }
            Err(error)
        }
    }
}

async fn host_steps(
    channel: &mut Channel,
    own: Fingerprint,
    codes: &Codes,
    purpose: Purpose,
) -> Result<(), PairingError> {
    channel.reader.set_limit(MAX_STEP);
    let start: Start = step(channel.reader.require()).await?.expect(START)?;
    if start.version != VERSION {
        return Err(PairingError::Version);
    }
    if start.purpose != purpose {
        return Err(PairingError::Purpose);
    }
    let attempt = codes.attempt(&start.label, Instant::now())?;
    let ends = Exchange::new(&attempt.secret, purpose, PairingRole::Host, own, channel);
    let answer = ends.message().to_vec();
    let keys = ends.finish(&start.spake).ok_or(PairingError::WrongCode)?;
    step(channel.writer.send(ANSWER, &answer)).await?;
    let theirs: [u8; 32] = step(channel.reader.require()).await?.expect(CONFIRM)?;
    if !keys.fits(&theirs) {
        return Err(codes.after_wrong(&start.label));
    }
    // Two joiners with the right code at once: the second one finds it used.
    codes.use_up(&start.label, attempt.generation)?;
    step(channel.writer.send(CONFIRM, &keys.ours())).await?;
    channel.reader.set_limit(MAX_PAYLOAD);
    Ok(())
}
