//! The client of `dyad-node`'s local socket. The socket serves the same API as HTTPS, without TLS, and only root may connect
//! to it.

use bytes::Bytes;
use dyad_api::{ApiError, SetupReply};
use dyad_wizard::{Answers, Kind, QUESTIONS, Question, QuestionId};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// The reason why a request to `dyad-node` failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No program listens on the socket: `dyad-node` is starting or has ended.
    #[error("this node's services are still starting")]
    Connect { socket: PathBuf, source: io::Error },
    /// The connection broke before the reply had arrived.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The request could not be built, which is a programming error.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The reply is not JSON of a form that this version knows.
    #[error("the node answered in an unknown form")]
    UnknownForm(#[source] Option<serde_json::Error>),
    /// `dyad-node` refused the request, with one sentence that says what is known.
    #[error("{}", .0.error)]
    Refused(ApiError),
}

/// A client of the socket. Each request opens its own connection, so a client survives restarts of `dyad-node`.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(path: PathBuf) -> Self {
        Self { socket: path }
    }

    /// Requests the state of setup.
    ///
    /// # Errors
    /// The socket does not connect, the connection breaks, or `dyad-node` refuses or answers in an unknown form.
    pub async fn setup(&self) -> Result<SetupReply, ClientError> {
        self.call(Method::GET, "/api/v1/setup", Vec::new()).await
    }

    /// Sends the complete answers and begins the setup.
    ///
    /// # Errors
    /// As [`Self::setup`].
    pub async fn begin(&self, answers: &Answers) -> Result<SetupReply, ClientError> {
        self.call(Method::POST, "/api/v1/setup", to_json(answers).to_string().into_bytes()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let ok = response.status().is_success();
        let bytes = response.into_body().collect().await?.to_bytes();
        if ok {
            return serde_json::from_slice(&bytes).map_err(|error| ClientError::UnknownForm(Some(error)));
        }
        Err(serde_json::from_slice(&bytes).map_or(ClientError::UnknownForm(None), ClientError::Refused))
    }
}

/// The answers as JSON with the keys of the seed file. Answers that may have several words become lists.
fn to_json(answers: &Answers) -> serde_json::Value {
    let entry = |question: &Question| {
        let text = answers.get(question.id)?;
        let value = match question.kind {
            Kind::Disks | Kind::Links => text.split_whitespace().collect(),
            _ if question.id == QuestionId::Dns => text.split_whitespace().collect(),
            _ => serde_json::Value::from(text),
        };
        Some((question.key.to_owned(), value))
    };
    QUESTIONS.iter().filter_map(entry).collect::<serde_json::Map<_, _>>().into()
}
