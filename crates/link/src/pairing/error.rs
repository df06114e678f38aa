//! Errors of pairing, and the limits that they name.

use std::time::Duration;

use crate::frame::FrameError;
use crate::tls::TlsError;

/// How often a code may be tried.
pub const MAX_TRIES: u32 = 5;
/// For each step of the exchange: TLS, the code, each payload.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Why pairing failed.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The code does not fit, or a machine in between has spoilt it.
    #[error("the code is wrong; compare it with the one shown on the other machine and type it again")]
    WrongCode,
    /// The code's ten minutes are over.
    #[error("the code has expired; ask the other machine for a new one")]
    Expired,
    /// Nobody asked for a code there, or it was already used.
    #[error("no pairing code is open on the other machine; ask it for one first")]
    NoCodeOpen,
    /// The code was tried too often and is void.
    #[error("the code was tried {MAX_TRIES} times and is void now; ask the other machine for a new one")]
    TooManyTries,
    /// The other side runs another version of this protocol.
    #[error("the other machine pairs by another protocol version; update the older one first")]
    Version,
    /// The other side expects another kind of partner.
    #[error("the code was made for something else: codes for nodes and for witnesses are not exchangeable")]
    Purpose,
    /// The other side does not go on.
    #[error("the other machine did not answer within {} s; check the network and try again", STEP_TIMEOUT.as_secs())]
    Timeout,
    /// No TLS connection came about.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The conversation broke off or was nonsense.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
