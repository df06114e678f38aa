//! A node's side: enrolling by a one-time code, and asking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dyad_link::frame::FrameError;
use dyad_link::pairing::{self, PairingError, Purpose};
use dyad_link::tls::{self, Channel, ClientConfig, Identity, Protocol, TlsError, Trust};
use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{Answer, WitnessAsk};
use dyad_types::NodeId;
use tokio::net::TcpStream;

use crate::protocol::{Body, Enrol, Enrolled, MAX_MESSAGE, REPLY, REQUEST, Refused, Reply, Request, Response};

/// Why the witness gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be connected to.
    #[error("the witness at {address} cannot be reached; check the address and the way there")]
    Unreachable {
        /// As configured.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// TLS failed; a wrong key is told here.
    #[error(transparent)]
    Tls(TlsError),
    /// The connection broke, or something else answered.
    #[error(transparent)]
    Frame(FrameError),
    /// No answer in time.
    #[error("the witness did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It answered, and refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<FrameError> for AskError {
    fn from(error: FrameError) -> Self {
        match TlsError::of_frame(error) {
            Ok(TlsError::Io(source)) => Self::Frame(FrameError::Io(source)),
            Ok(tls) => Self::Tls(tls),
            Err(frame) => Self::Frame(frame),
        }
    }
}

impl AskError {
    /// Whether the witness is out of reach, as opposed to answering something unwelcome.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Frame(_) | Self::Timeout(_) => true,
            Self::Tls(error) => matches!(error, TlsError::Io(_) | TlsError::Timeout { .. }),
            Self::Refused(_) => false,
        }
    }
}

/// Why a pair could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The witness cannot be connected to.
    #[error("the witness at {address} cannot be reached; check the address and the way there")]
    Unreachable {
        /// As given.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The code, or the conversation.
    #[error(transparent)]
    Pairing(#[from] PairingError),
    /// The witness does not take the pair.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a successful enrolment gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// What the next configuration must admit.
    pub enrolled: Enrolled,
    /// The witness's key; keep it and pin it.
    pub fingerprint: Fingerprint,
}

/// Enrols a pair at the witness at `address` ("host:port") with the one-time `code` it showed.
///
/// # Errors
/// Any [`EnrolError`].
pub async fn enrol(
    address: &str,
    code: &str,
    identity: &Identity,
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

/// How to reach a witness that the pair is enrolled at.
#[derive(Debug, Clone)]
pub struct Target {
    /// "host:port".
    pub address: String,
    /// The pair.
    pub pair: PairId,
    /// This node's key.
    pub identity: Identity,
    /// The witness's key.
    pub witness: Fingerprint,
}

/// Asks one witness, over one connection that is kept warm and made anew when it breaks.
///
/// Every question may be repeated safely. A call may be cancelled; its connection is then dropped.
pub struct Client {
    address: String,
    pair: PairId,
    tls: Arc<ClientConfig>,
    line: Option<Channel>,
    next: u64,
    round_trip: Option<Duration>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the identity cannot be used.
    pub fn new(target: &Target) -> Result<Self, TlsError> {
        let tls = tls::client_config(&target.identity, Trust::Pinned(target.witness), Protocol::Witness)?;
        Ok(Self { address: target.address.clone(), pair: target.pair, tls, line: None, next: 0, round_trip: None })
    }

    /// Asks `question` and waits up to `limit` for the answer, connecting if need be.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn ask(&mut self, question: &WitnessAsk, limit: Duration) -> Result<Answer, AskError> {
        match self.request(Body::Ask(question.clone()), limit).await? {
            Response::Answer(answer) => Ok(answer),
            Response::Added => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Lets `key` speak for `node`, the peer of this node.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn add_key(&mut self, node: NodeId, key: Fingerprint, limit: Duration) -> Result<(), AskError> {
        match self.request(Body::AddKey { node, key }, limit).await? {
            Response::Added => Ok(()),
            Response::Answer(_) => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Time from the last question on a warm connection to its answer, the witness's sync included.
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
        // Taken out: a call that is cancelled half-way must not leave a line that holds its answer.
        if let Some(mut line) = self.line.take() {
            // The witness may have closed it meanwhile; that says nothing about a new one.
            if let Ok(reply) = converse(&mut line, &request).await {
                return self.settle(line, reply);
            }
        }
        let mut line = self.connect(limit).await?;
        let reply = converse(&mut line, &request).await?;
        self.settle(line, reply)
    }

    fn settle(&mut self, line: Channel, (reply, took): (Reply, Duration)) -> Result<Response, AskError> {
        self.line = Some(line);
        self.round_trip = Some(took);
        Ok(reply.outcome?)
    }

    async fn connect(&self, limit: Duration) -> Result<Channel, AskError> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|source| AskError::Unreachable { address: self.address.clone(), source })?;
        let mut line = tls::connect(stream, Arc::clone(&self.tls), limit).await.map_err(AskError::Tls)?;
        line.reader.set_limit(MAX_MESSAGE);
        Ok(line)
    }
}

async fn converse(line: &mut Channel, request: &Request) -> Result<(Reply, Duration), AskError> {
    let start = Instant::now();
    line.writer.send(REQUEST, request).await?;
    let reply: Reply = line.reader.require().await?.expect(REPLY)?;
    if reply.id != request.id {
        return Err(AskError::Frame(FrameError::Unexpected { kind: REPLY }));
    }
    Ok((reply, start.elapsed()))
}
