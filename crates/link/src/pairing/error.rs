//! Errors of pairing, and the limits that they name.

use std::time::Duration;

use crate::frame::FrameError;
use crate::tls::TlsError;

/// Maximum number of tries of a code.
pub const MAX_TRIES: u32 = 5;
/// Time limit of each step of a pairing: TLS handshake, each message, each payload.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// The errors of a pairing. Nothing of the failed exchange is kept but the count of tries of the code.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The code is wrong, or a machine in between changed the exchange.
    #[error("the code is wrong; compare it with the one shown on the other machine and type it again")]
    WrongCode,
    /// The code is older than [`CODE_VALIDITY_PERIOD`](super::CODE_VALIDITY_PERIOD).
    #[error("the code has expired; ask the other machine for a new one")]
    Expired,
    /// The host has no open code, or the code was used already.
    #[error("no pairing code is open on the other machine; ask it for one first")]
    NoCodeOpen,
    /// The code was tried [`MAX_TRIES`] times and is void.
    #[error("the code was tried {MAX_TRIES} times and is void now; ask the other machine for a new one")]
    TooManyTries,
    /// The other side uses another version of this protocol.
    #[error("the other machine pairs by another protocol version; update the older one first")]
    Version,
    /// The code was opened for another purpose.
    #[error("the code was made for something else: codes for nodes and for witnesses are not exchangeable")]
    Purpose,
    /// The other side did not answer in time.
    #[error("the other machine did not answer within {} s; check the network and try again", STEP_TIMEOUT.as_secs())]
    Timeout,
    /// The TLS connection could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection broke, or the other side sent an invalid message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
