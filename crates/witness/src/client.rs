//! The client of a node: enrolment by a one-time code, and requests to the witness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dyad_link::frame::FrameError;
use dyad_link::pairing::{self, PairingError, Purpose};
use dyad_link::tls::{self, Channel, ClientConfig, Protocol, TlsError, TlsIdentity, Trust};
use dyad_link::{Fingerprint, PairId, net};
use dyad_quorum::{AcceptorReply, WitnessRequest};
use dyad_types::NodeId;
use tokio::net::TcpStream;

use crate::protocol::{
    Enrol, Enrolled, MAX_MESSAGE, REPLY, REQUEST, ReplyFrame, Request, RequestBody, Response, WitnessRefusal,
};

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
    /// The connection broke, or the answer is not a valid message of a witness.
    #[error(transparent)]
    Frame(FrameError),
    /// No answer within the time limit.
    #[error("the witness did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The witness refused the request.
    #[error(transparent)]
    Refused(#[from] WitnessRefusal),
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
    /// Whether no valid answer came: no connection, no answer in time, a broken connection or an invalid message.
    /// `false` for a refusal, and for a TLS handshake that failed because of a key.
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
    Refused(#[from] WitnessRefusal),
}

/// The result of a successful enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// The witness id and incarnation that the pair's next configuration must admit.
    pub enrolled: Enrolled,
    /// The fingerprint of the witness's key, to be stored and pinned.
    pub fingerprint: Fingerprint,
}

/// The code that the witness has printed for one enrolment.
#[derive(Clone, Copy)]
pub struct OneTimeCode<'a>(pub &'a str);

/// Enrols a pair at the witness at `address` ("host:port") with the code that the witness has printed. The connection
/// must be established within `limit`; each step of the pairing has its own limit ([`pairing::STEP_TIMEOUT`]).
///
/// # Errors
/// The witness cannot be reached, the pairing fails, or the witness refuses the pair.
pub async fn enrol(
    address: &str,
    OneTimeCode(code): OneTimeCode<'_>,
    identity: &TlsIdentity,
    enrol: &Enrol,
    limit: Duration,
) -> Result<Enrolment, EnrolError> {
    let unreachable = |source| EnrolError::Unreachable { address: address.to_owned(), source };
    let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(unreachable)?,
        Err(_) => return Err(unreachable(std::io::ErrorKind::TimedOut.into())),
    };
    let mut paired = pairing::join(stream, identity, code, Purpose::Witness).await?;
    paired.send(enrol).await?;
    let outcome: Result<Enrolled, WitnessRefusal> = paired.receive().await?;
    Ok(Enrolment { enrolled: outcome?, fingerprint: paired.peer() })
}

/// A witness at which the pair is enrolled: its address and key, and the key of this node.
#[derive(Debug, Clone)]
pub struct Target {
    /// Address and port on which the witness listens, as `host:port`.
    pub address: String,
    pub pair: PairId,
    /// The key of this node.
    pub identity: TlsIdentity,
    /// The pinned fingerprint of the witness's key.
    pub witness: Fingerprint,
}

/// A standing connection that is silent for this long, and for three round trips, is replaced: a firewall may have forgotten
/// it, or the witness may have restarted without a word.
const SILENT_CONNECTION_TIMEOUT: Duration = Duration::from_millis(750);

/// Sends requests to one witness over one connection, which is kept open and replaced when it breaks or is silent.
///
/// Every request is idempotent: after a lost answer it is sent again. A call may be cancelled; its connection is then
/// closed.
pub struct Client {
    address: String,
    pair: PairId,
    tls: Arc<ClientConfig>,
    connection: Option<Channel>,
    /// Id of the last request.
    last_id: u64,
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
            last_id: 0,
            round_trip: None,
        })
    }

    /// Sends a request to the witness as acceptor and returns its answer. `limit` is the time limit of the call, which
    /// includes connecting if there is no connection.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn ask(&mut self, request: &WitnessRequest, limit: Duration) -> Result<AcceptorReply, AskError> {
        match self.request(RequestBody::Ask(request.clone()), limit).await? {
            Response::Answer(answer) => Ok(answer),
            Response::Added => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Enrols `key` as the key of `node`, which must be the peer of this node.
    ///
    /// # Errors
    /// Any [`AskError`].
    pub async fn add_key(&mut self, node: NodeId, key: Fingerprint, limit: Duration) -> Result<(), AskError> {
        match self.request(RequestBody::AddKey { node, key }, limit).await? {
            Response::Added => Ok(()),
            Response::Answer(_) => Err(AskError::Frame(FrameError::Unexpected { kind: REPLY })),
        }
    }

    /// Round-trip time of the last answered request, without connection set-up. It includes the witness's disk sync if
    /// the request changed its record.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    async fn request(&mut self, body: RequestBody, limit: Duration) -> Result<Response, AskError> {
        match tokio::time::timeout(limit, self.exchange(body, limit)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AskError::Timeout(limit)),
        }
    }

    async fn exchange(&mut self, body: RequestBody, limit: Duration) -> Result<Response, AskError> {
        self.last_id += 1;
        let request = Request { id: self.last_id, pair: self.pair, body };
        // The connection is taken out of `self`, so that it is closed if this call is cancelled: an answer may be
        // pending on it.
        if let Some(mut connection) = self.connection.take() {
            // The witness closes an idle connection after 300 s. After an error or a silence the request is therefore
            // repeated once on a new connection.
            let silence = SILENT_CONNECTION_TIMEOUT.max(3 * self.round_trip.unwrap_or_default());
            let reply = tokio::time::timeout(silence, send_and_receive(&mut connection, &request)).await;
            if let Ok(Ok(reply)) = reply {
                return self.record_reply(connection, reply);
            }
        }
        let mut connection = self.connect(limit).await?;
        let reply = send_and_receive(&mut connection, &request).await?;
        self.record_reply(connection, reply)
    }

    /// Keeps the connection and the round-trip time; returns the content of the reply.
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
        // Best effort: the time limit of the request ends the wait in any case.
        let _ = net::set_dead_path_timeout(&stream, limit);
        let mut connection = tls::connect(stream, Arc::clone(&self.tls), limit).await.map_err(AskError::Tls)?;
        connection.reader.set_limit(MAX_MESSAGE);
        Ok(connection)
    }
}

/// Sends one request and receives its reply; returns the reply and the round-trip time.
async fn send_and_receive(connection: &mut Channel, request: &Request) -> Result<(ReplyFrame, Duration), AskError> {
    let start = Instant::now();
    connection.writer.send(REQUEST, request).await?;
    let reply: ReplyFrame = connection.reader.next_required().await?.expect(REPLY)?;
    if reply.id != request.id {
        return Err(AskError::Frame(FrameError::Unexpected { kind: REPLY }));
    }
    Ok((reply, start.elapsed()))
}
