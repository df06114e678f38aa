//! The client of a node: enrolment by a one-time code, and requests to the witness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dyad_link::frame::FrameError;
use dyad_link::pairing::{self, PairingError, Purpose};
use dyad_link::tls::{self, Channel, ClientConfig, Protocol, TlsError, TlsIdentity, Trust};
use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{AcceptorReply, WitnessRequest};
use dyad_types::NodeId;
use tokio::net::TcpStream;

use crate::protocol::{Body, Enrol, Enrolled, MAX_MESSAGE, REPLY, REQUEST, Refused, ReplyFrame, Request, Response};

/// The errors of a request to the witness.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection cannot be made.
    #[error("the witness at {address} cannot be reached; check the address, the cables and the firewall")]
    Unreachable {
        /// Address of the witness, as configured.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// TLS failed, for instance because the witness has another key.
    #[error(transparent)]
    Tls(TlsError),
    /// The connection broke, or the answer is not that of a witness.
    #[error(transparent)]
    Frame(FrameError),
    /// No answer within the time limit.
    #[error("the witness did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The witness refused the request.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<FrameError> for AskError {
    fn from(error: FrameError) -> Self {
        match TlsError::from_frame(error) {
            Ok(TlsError::Io(source)) => Self::Frame(FrameError::Io(source)),
            Ok(tls) => Self::Tls(tls),
            Err(frame) => Self::Frame(frame),
        }
    }
}

impl AskError {
    /// Whether the witness cannot be reached or does not answer. `false` if it answered, even with a refusal or another
    /// key.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Frame(_) | Self::Timeout(_) => true,
            Self::Tls(error) => matches!(error, TlsError::Io(_) | TlsError::Timeout { .. }),
            Self::Refused(_) => false,
        }
    }
}

/// The errors of an enrolment.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The connection cannot be made.
    #[error("the witness at {address} cannot be reached; check the address, the cables and the firewall")]
    Unreachable {
        /// Address of the witness, as the caller gave it.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// The code is wrong, or the pairing failed.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// The witness refused the pair.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The result of a successful enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// The witness id and incarnation that the pair's next configuration must admit.
    pub enrolled: Enrolled,
    /// The fingerprint of the witness's key, to be stored and pinned.
    pub fingerprint: Fingerprint,
}

/// The code that the witness shows for one enrolment.
#[derive(Clone, Copy)]
pub struct OneTimeCode<'a>(pub &'a str);

/// Enrols a pair at the witness at `address` ("host:port") with the `code` that the witness showed.
///
/// # Errors
/// The witness cannot be reached, the pairing fails, or the witness refuses the pair.
pub async fn enrol(
    address: &str,
    OneTimeCode(code): OneTimeCode<'_>,
    identity: &TlsIdentity,
    ask: &Enrol,
    limit: Duration,
) -> Result<Enrolment, EnrolError> {
    let unreachable = |source| EnrolError::Unreachable { address: address.to_owned(), source };
    let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(unreachable)?,
        Err(_) => return Err(unreachable(std::io::ErrorKind::TimedOut.into())),
    };
    let mut paired = pairing::join(stream, identity, code, Purpose::Witness).await?;
    paired.send(ask).await?;
    let outcome: Result<Enrolled, Refused> = paired.receive().await?;
    Ok(Enrolment { enrolled: outcome?, fingerprint: paired.peer() })
}

/// The address and the keys for a witness at which the pair is enrolled.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the witness listens, as `host:port`.
    pub address: String,
    pub pair: PairId,
    /// The key of this node.
    pub identity: TlsIdentity,
    /// The pinned fingerprint of the witness's key.
    pub witness: Fingerprint,
}

/// Sends requests to one witness over one connection, which is kept open and replaced when it breaks.
///
/// Every request is idempotent. A request may be cancelled; its connection is then closed.
pub struct Client {
    address: String,
    pair: PairId,
    tls: Arc<ClientConfig>,
    connection: Option<Channel>,
    next: u64,
    round_trip: Option<Duration>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Client {
    /// Creates a client; the first request connects.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn new(target: &Target) -> Result<Self, TlsError> {
        let tls = tls::client_config(&target.identity, Trust::Pinned(target.witness), Protocol::Witness)?;
        Ok(Self {
            address: target.address.clone(),
            pair: target.pair,
            tls,
            connection: None,
            next: 0,
            round_trip: None,
        })
    }

    /// Sends `question` and waits up to `limit` for the answer; connects first if there is no connection.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn ask(&mut self, question: &WitnessRequest, limit: Duration) -> Result<AcceptorReply, AskError> {
        match self.request(Body::Ask(question.clone()), limit).await? {
            Response::Answer(answer) => Ok(answer),
            Response::Added => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Enrols `key` as the key of `node`, which must be the peer of this node.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn add_key(&mut self, node: NodeId, key: Fingerprint, limit: Duration) -> Result<(), AskError> {
        match self.request(Body::AddKey { node, key }, limit).await? {
            Response::Added => Ok(()),
            Response::Answer(_) => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Round-trip time of the last request, which includes the witness's disk sync but no connection set-up.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    async fn request(&mut self, body: Body, limit: Duration) -> Result<Response, AskError> {
        match tokio::time::timeout(limit, self.exchange(body, limit)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AskError::Timeout(limit)),
        }
    }

    async fn exchange(&mut self, body: Body, limit: Duration) -> Result<Response, AskError> {
        self.next += 1;
        let request = Request { id: self.next, pair: self.pair, body };
        // Taken out of `self`: if this call is cancelled, the connection, on which an answer may be pending, is closed.
        if let Some(mut connection) = self.connection.take() {
            // The witness closes an idle connection after 300 s, so an error here does not mean that a new one fails.
            if let Ok(reply) = exchange_frames(&mut connection, &request).await {
                return self.record_reply(connection, reply);
            }
        }
        let mut connection = self.connect(limit).await?;
        let reply = exchange_frames(&mut connection, &request).await?;
        self.record_reply(connection, reply)
    }

    fn record_reply(
        &mut self,
        connection: Channel,
        (reply, took): (ReplyFrame, Duration),
    ) -> Result<Response, AskError> {
        self.connection = Some(connection);
        self.round_trip = Some(took);
        Ok(reply.outcome?)
    }

    async fn connect(&self, limit: Duration) -> Result<Channel, AskError> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|source| AskError::Unreachable { address: self.address.clone(), source })?;
        let mut connection = tls::connect(stream, Arc::clone(&self.tls), limit).await.map_err(AskError::Tls)?;
        connection.reader.set_limit(MAX_MESSAGE);
        Ok(connection)
    }
}

async fn exchange_frames(connection: &mut Channel, request: &Request) -> Result<(ReplyFrame, Duration), AskError> {
    let start = Instant::now();
    connection.writer.send(REQUEST, request).await?;
    let reply: ReplyFrame = connection.reader.next_required().await?.expect(REPLY)?;
    if reply.id != request.id {
        return Err(AskError::Frame(FrameError::Unexpected { kind: REPLY }));
    }
    Ok((reply, start.elapsed()))
}
