//! The client of `dyad-node`'s local socket. The API is the same as over HTTPS, but without TLS, and only root may
//! connect.

use anyhow::{Context, bail};
use bytes::Bytes;
use dyad_api::{ApiError, SetupReply};
use dyad_wizard::{Answers, Id, Kind, QUESTIONS, Question};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use tokio::net::UnixStream;

#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(path: PathBuf) -> Self {
        Self { socket: path }
    }

    /// Asks for the phase and the progress of setup.
    ///
    /// # Errors
    /// The socket does not connect, or `dyad-node` refuses or answers in an unknown form.
    pub async fn setup(&self) -> anyhow::Result<SetupReply> {
        self.call(Method::GET, "/api/v1/setup", Vec::new()).await?.map_err(|e| anyhow::anyhow!(e.error))
    }

    /// Begins setup. The inner error is `dyad-node`'s refusal.
    ///
    /// # Errors
    /// The socket does not connect or the answer has an unknown form.
    pub async fn begin(&self, answers: &Answers) -> anyhow::Result<Result<SetupReply, ApiError>> {
        self.call(Method::POST, "/api/v1/setup", serde_json::to_vec(&request(answers))?).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Result<T, ApiError>> {
        let stream = UnixStream::connect(&self.socket).await.context("this node's services are still starting")?;
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
            return Ok(Ok(serde_json::from_slice(&bytes).context("the node answered in an unknown form")?));
        }
        match serde_json::from_slice(&bytes) {
            Ok(refusal) => Ok(Err(refusal)),
            Err(_) => bail!("the node answered in an unknown form"),
        }
    }
}

/// The answers in the JSON form of the seed file: an answer that may have several words is a list.
fn request(answers: &Answers) -> serde_json::Value {
    let entry = |question: &Question| {
        let text = answers.get(question.id)?;
        let value = match question.kind {
            Kind::Disks | Kind::Links => text.split_whitespace().collect(),
            _ if question.id == Id::Dns => text.split_whitespace().collect(),
            _ => serde_json::Value::from(text),
        };
        Some((question.key.to_owned(), value))
    };
    QUESTIONS.iter().filter_map(entry).collect::<serde_json::Map<_, _>>().into()
}
