//! The client of one node's API: HTTPS with a pinned certificate, the session token, and the node's refusals as errors.

use std::{fs::File, io::Read, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use dyad_api::ApiError;
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent,
    http::{Method, Response},
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector, TcpConnector},
    },
};

use crate::{
    pin::{CertificatePin, PinnedTlsConnector},
    store::NodeStore,
};

/// Limit for the connection to a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size in bytes of a reply that is not a stream.
const MAX_REPLY_BYTES: u64 = 16 << 20;

pub(crate) struct Client {
    base_url: String,
    /// `host:port` of the node, its key in the store.
    node: String,
    agent: Agent,
    pin: Arc<CertificatePin>,
    store: NodeStore,
}

impl Client {
    pub(crate) fn new(url: &str, config: Option<PathBuf>) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let base_url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let Some(host) = base_url.strip_prefix("https://").filter(|host| !host.is_empty() && !host.contains('/'))
        else {
            bail!("\"{url}\" is not a node: write it like https://192.0.2.10");
        };
        let port_given = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let node = if port_given { host.to_owned() } else { format!("{host}:{}", dyad_api::HTTPS_PORT) };
        let store = NodeStore::open(config)?;
        let pin = CertificatePin::new(store.known(&node).certificate);
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .build();
        let connector = TcpConnector::default().chain(PinnedTlsConnector::new(pin.clone())?);
        let agent = Agent::with_parts(settings, connector, DefaultResolver::default());
        Ok(Client { base_url, node, agent, pin, store })
    }

    /// `host:port` of the node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Sends a GET request and parses the JSON of the reply.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let response = self.send(Method::GET, path, None)?;
        parse_reply(response)
    }

    /// Sends a POST request and parses the JSON of the reply.
    pub(crate) fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let response = self.send(Method::POST, path, Some(serde_json::to_string(body)?))?;
        parse_reply(response)
    }

    /// Sends a request whose reply has no content.
    pub(crate) fn send_without_content(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<()> {
        let body = body.map(serde_json::to_string).transpose()?;
        self.send(method, path, body).map(drop)
    }

    /// Sends a file with `Expect: 100-continue`: the node may refuse the request before the file is sent.
    pub(crate) fn put<T: DeserializeOwned>(&mut self, path: &str, file: &File) -> anyhow::Result<T> {
        let mut request = self.agent.put(self.url(path)).header("Content-Type", "application/octet-stream");
        request = request.header("Expect", "100-continue");
        if let Some(token) = self.store.known(&self.node).token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let sent = request.send(file);
        parse_reply(self.checked(sent)?)
    }

    /// Sends a GET request and returns the reply as a stream of any length.
    pub(crate) fn stream(&mut self, path: &str) -> anyhow::Result<impl Read + use<>> {
        Ok(self.send(Method::GET, path, None)?.into_body().into_reader())
    }

    /// Stores the session's token; `None` deletes the stored one.
    pub(crate) fn store_token(&mut self, token: Option<String>) -> anyhow::Result<()> {
        let node = self.node.clone();
        self.store.update(&node, |known| known.token = token)
    }

    /// Deletes the node's certificate and token from the store.
    pub(crate) fn forget(&mut self) -> anyhow::Result<()> {
        let node = self.node.clone();
        self.store.forget(&node)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base_url)
    }

    fn send(&mut self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Response<ureq::Body>> {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        if let Some(token) = self.store.known(&self.node).token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let sent = match body {
            Some(body) => self.agent.run(request.header("Content-Type", "application/json").body(body)?),
            None => self.agent.run(request.body(())?),
        };
        self.checked(sent)
    }

    /// Checks the certificate, which is stored at the first contact, then the HTTP status. A refusal of the node becomes an
    /// [`ApiError`].
    fn checked(&mut self, sent: Result<Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Response<ureq::Body>> {
        if self.pin.is_violated() {
            bail!(
                "The certificate of {0} has changed: if the node was erased and set up again, run `dyad --node {1} forget` \
                 and try again; if not, another machine may have taken its address: do not log in.",
                self.node,
                self.base_url
            );
        }
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Err(anyhow!(error).context(format!("{} does not answer", self.node))),
        };
        if let Some(presented) = self.pin.presented()
            && self.store.known(&self.node).certificate.is_none()
        {
            eprintln!(
                "First contact with {}: its certificate has the SHA-256 {presented} and is trusted from now on.",
                self.node
            );
            let node = self.node.clone();
            self.store.update(&node, |known| known.certificate = Some(presented))?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.body_mut().with_config().limit(MAX_REPLY_BYTES).read_to_string()?;
        let refused: ApiError = serde_json::from_str(&text).with_context(|| {
            format!("{} answered {status} without a Dyad error: it may not be a Dyad node", self.node)
        })?;
        Err(refused.into())
    }
}

/// Parses the JSON of a reply.
fn parse_reply<T: DeserializeOwned>(mut response: Response<ureq::Body>) -> anyhow::Result<T> {
    let text = response.body_mut().with_config().limit(MAX_REPLY_BYTES).read_to_string()?;
    serde_json::from_str(&text)
        .context("the node's reply has an unknown form: use the dyad command of the node's version")
}
