//! The network side of the daemon: TLS connections of the nodes of many pairs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dyad_link::pairing::{self, CodeForm, Codes, OpenCode, PairingError, Purpose};
use dyad_link::tls::{self, Channel, Protocol, ServerConfig, TlsError, TlsIdentity, Trust};
use dyad_link::{Fingerprint, PairId, net};
use dyad_types::Epoch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinSet;

use crate::accept::next_connection;
use crate::pairs;
use crate::protocol::{
    Enrol, Enrolled, MAX_MESSAGE, NodeKeys, REPLY, REQUEST, ReplyFrame, Request, RequestBody, Response, WitnessRefusal,
};
use crate::store::{Store, StoreError, StoredEntry};
use crate::store_writer::{StoreStopped, StoreWriter};

/// Maximum number of connections: two for each of 10,000 pairs, and a reserve.
const MAX_CONNECTIONS: usize = 25_000;
/// Maximum number of concurrent TLS handshakes. They need processor time; further ones wait.
const MAX_HANDSHAKES: usize = 256;
/// A connection that has waited for its TLS handshake for this long is closed: its node has given it up, since a request of
/// a node takes at most 12 s. Without a limit, silent connections would hold back the nodes behind them for minutes.
const HANDSHAKE_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of concurrent pairings; further ones are refused.
const MAX_PAIRINGS: usize = 8;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request for this long is closed. A node reads the witness every 5 s
/// ([`dyad_quorum::Timing::witness_poll_interval`]).
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The configuration of a witness.
#[derive(Debug, Clone)]
pub struct WitnessConfig {
    /// The directory of the witness's key and store; created if it does not exist.
    pub directory: PathBuf,
    /// The address to listen on.
    pub listen: SocketAddr,
}

/// The errors of starting a witness.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The witness's key cannot be loaded or generated.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The listening socket cannot be opened.
    #[error("the witness cannot listen on {address}; is another program using that port?")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// One line of `dyad-witness list`: a pair and the state of its record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PairSummary {
    pub pair: PairId,
    /// Empty if the record is damaged.
    pub name: String,
    /// The keys of the pair's nodes; none if the record is damaged.
    pub keys: NodeKeys,
    /// The newest epoch that the witness knows to be decided; `None` if the record is damaged.
    pub epoch: Option<Epoch>,
    /// Whether a configuration has admitted this witness, so that its vote counts.
    pub votes: bool,
}

/// State that all tasks of the daemon share.
pub(crate) struct SharedState {
    store_writer: StoreWriter,
    codes: Codes,
    identity: TlsIdentity,
    tls: Arc<ServerConfig>,
    handshakes: Arc<Semaphore>,
    pairings: Semaphore,
}

impl SharedState {
    pub(crate) fn open_code(&self) -> OpenCode {
        self.codes.open(CodeForm::Witness, Instant::now())
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    pub(crate) async fn list(&self) -> Result<Vec<PairSummary>, StoreStopped> {
        let all = self.store_writer.run(|batch| batch.entries()).await?;
        let summary = |(pair, slot)| match slot {
            StoredEntry::Valid(entry) => PairSummary {
                pair,
                name: entry.name,
                keys: entry.keys,
                epoch: Some(entry.record.base.epoch),
                votes: entry.record.may_vote_as(dyad_quorum::Acceptor::W),
            },
            StoredEntry::Missing | StoredEntry::Damaged => {
                PairSummary { pair, name: String::new(), keys: [None; 2], epoch: None, votes: false }
            }
        };
        Ok(all.into_iter().map(summary).collect())
    }

    pub(crate) async fn forget(&self, pair: PairId) -> Result<bool, StoreStopped> {
        self.store_writer.run(move |batch| batch.delete(pair)).await
    }
}

/// A witness that is ready to serve.
pub struct Server {
    shared: Arc<SharedState>,
    listener: TcpListener,
    failure: oneshot::Receiver<StoreError>,
}

impl Server {
    /// Opens the store and the listening socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// The store, the key or the socket cannot be used.
    pub fn open(config: &WitnessConfig) -> Result<Self, ServerError> {
        let store = Store::open(&config.directory)?;
        let identity = TlsIdentity::load_or_generate(&config.directory, "dyad-witness")?;
        let tls = tls::server_config(&identity, Trust::AnyKey, &[Protocol::Witness, Protocol::Pairing])?;
        let listener =
            net::listen(config.listen).map_err(|source| ServerError::Listen { address: config.listen, source })?;
        tracing::info!(fingerprint = %identity.fingerprint(), address = %config.listen, "the witness is ready");
        let (store_writer, failure) = StoreWriter::start(store);
        let shared = SharedState {
            store_writer,
            codes: Codes::new(),
            identity,
            tls,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            pairings: Semaphore::new(MAX_PAIRINGS),
        };
        Ok(Self { shared: Arc::new(shared), listener, failure })
    }

    /// The fingerprint of the witness's key, which nodes pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.fingerprint()
    }

    /// The address on which the witness listens.
    ///
    /// # Errors
    /// The error of `getsockname`.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Creates a one-time code for one enrolment.
    #[must_use]
    pub fn open_code(&self) -> OpenCode {
        self.shared.open_code()
    }

    pub(crate) fn shared(&self) -> Arc<SharedState> {
        Arc::clone(&self.shared)
    }

    /// Serves until the store fails, and returns that error. Dropping the future closes all connections.
    pub async fn run(self) -> StoreError {
        let Self { shared, listener, mut failure } = self;
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                failed = &mut failure => return failed.unwrap_or(StoreError::Ended),
                (stream, from) = next_connection(|| listener.accept()) => {
                    // A connection beyond the limit is closed at once; the node connects again.
                    if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                        connections.spawn(serve(Arc::clone(&shared), stream, from, permit));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Runs one connection: TLS, then a pairing or requests.
async fn serve(shared: Arc<SharedState>, stream: TcpStream, from: SocketAddr, _permit: OwnedSemaphorePermit) {
    let channel = {
        let Some(_turn) = handshake_turn(&shared.handshakes).await else {
            tracing::debug!(%from, "too many TLS handshakes at once");
            return;
        };
        tls::accept(stream, Arc::clone(&shared.tls), TLS_HANDSHAKE_TIMEOUT).await
    };
    match channel {
        Ok(channel) if channel.protocol == Protocol::Pairing => match enrol(&shared, channel).await {
            Ok((pair, Ok(_))) => tracing::info!(%from, %pair, "a pair was enrolled"),
            Ok((pair, Err(refused))) => tracing::warn!(%from, %pair, %refused, "an enrolment was refused"),
            Err(error) => tracing::warn!(%from, %error, "an enrolment failed"),
        },
        Ok(channel) => {
            if let Err(error) = serve_requests(&shared, channel).await {
                tracing::debug!(%from, %error, "a connection ended");
            }
        }
        Err(error) => tracing::debug!(%from, %error, "no TLS"),
    }
}

/// Waits for one of the concurrent TLS handshakes; `None` after [`HANDSHAKE_QUEUE_TIMEOUT`].
async fn handshake_turn(handshakes: &Semaphore) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(HANDSHAKE_QUEUE_TIMEOUT, handshakes.acquire()).await.ok()?.ok()
}

/// The reason for which a connection ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error(transparent)]
    Frame(#[from] dyad_link::frame::FrameError),
    #[error(transparent)]
    Pairing(#[from] PairingError),
    #[error(transparent)]
    Store(#[from] StoreStopped),
    #[error("nothing was asked for {} s", IDLE_TIMEOUT.as_secs())]
    Idle,
    #[error("too many enrolments at once")]
    Busy,
}

/// Enrols a pair over a pairing; returns the pair and the answer that was sent.
async fn enrol(
    shared: &SharedState,
    channel: Channel,
) -> Result<(PairId, Result<Enrolled, WitnessRefusal>), ConnectionEnd> {
    let _permit = shared.pairings.try_acquire().map_err(|_| ConnectionEnd::Busy)?;
    let own = shared.fingerprint();
    let mut paired = pairing::host_on(channel, own, &shared.codes, Purpose::Witness).await?;
    let key = paired.peer();
    let ask: Enrol = paired.receive().await?;
    let pair = ask.pair;
    let outcome = shared.store_writer.run(move |batch| pairs::enrol(batch, key, ask)).await?;
    paired.send(&outcome).await?;
    paired.close().await?;
    Ok((pair, outcome))
}

/// Answers requests, one after the other, until the connection ends.
async fn serve_requests(shared: &SharedState, mut channel: Channel) -> Result<(), ConnectionEnd> {
    channel.reader.set_limit(MAX_MESSAGE);
    let key = channel.peer;
    loop {
        let frame = match tokio::time::timeout(IDLE_TIMEOUT, channel.reader.next()).await {
            Ok(frame) => frame?,
            Err(_) => return Err(ConnectionEnd::Idle),
        };
        let Some(frame) = frame else { return Ok(()) };
        let Request { id, pair, body } = frame.expect(REQUEST)?;
        let outcome = match body {
            RequestBody::Ask(ask) => {
                let answer =
                    shared.store_writer.run(move |batch| pairs::answer_request(batch, key, pair, &ask)).await?;
                answer.map(Response::Answer)
            }
            RequestBody::AddKey { node, key: new } => {
                let added = shared.store_writer.run(move |batch| pairs::add_key(batch, key, pair, node, new)).await?;
                added.map(|()| Response::Added)
            }
        };
        if let Err(refused) = &outcome {
            tracing::warn!(%pair, %key, %refused, "a question was refused");
        }
        channel.writer.send(REPLY, &ReplyFrame { id, outcome }).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_its_handshake_only_as_long_as_its_node() {
        let handshakes = Semaphore::new(1);
        let turn = handshake_turn(&handshakes).await.expect("one handshake is free");
        let begin = tokio::time::Instant::now();
        assert!(handshake_turn(&handshakes).await.is_none());
        assert_eq!(begin.elapsed(), HANDSHAKE_QUEUE_TIMEOUT);
        drop(turn);
        assert!(handshake_turn(&handshakes).await.is_some());
    }
}
