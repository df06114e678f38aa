//! An HTTP client of a node's API. It uses no code of the node, only what `docs/openapi.json` states.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, RequestBuilder};

use crate::wait;

/// Longest time for which one stream is followed. A node that its watchdog resets does not close its connections, so the
/// caller connects again after this time. The node then repeats lines, which the callers ignore.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of one request. An emulated node answers in tens of milliseconds; a loaded node may take seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// First and shortest timeout of a [probing](Client::probing) client.
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// Factor by which the timeout of a probing client grows after each timeout.
const PROBE_BACKOFF: f64 = 1.1;
/// Timeout of POST and PUT requests: some of them form a pair or send an image, megabytes through two emulated nodes.
const LONG_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// A client of one node's API. Clones share one login.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    address: String,
    password: Option<String>,
    token: Arc<Mutex<Option<String>>>,
    /// Timeout of the next GET of a probing client; `None` = the fixed timeouts.
    probe_timeout: Option<Arc<Mutex<Duration>>>,
}

/// An answer of the node with an HTTP status that is not success.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP status code of the answer.
    pub status: u16,
    /// The answer's body: JSON, or a string if it was not.
    pub body: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}: {}", self.status, self.body)
    }
}

impl std::error::Error for Refusal {}

impl Client {
    /// A client of the node at `address` (`https://host:port`). It accepts any certificate, since a node's is
    /// self-signed.
    pub fn new(address: &str) -> Self {
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().disable_verification(true).build())
            .timeout_connect(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Self { agent, address: address.to_owned(), password: None, token: Arc::default(), probe_timeout: None }
    }

    /// This client with the administrator's password: it logs in whenever the node answers 401.
    #[must_use]
    pub fn as_administrator(self, password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..self }
    }

    /// This client for a node that may be off or booting. QEMU accepts the connection at once and retries towards the
    /// node at growing intervals, so a new request is answered sooner than an old one. Therefore GET requests begin
    /// with a short timeout, which grows after each timeout, because a loaded node needs longer.
    pub fn probing(&self) -> Self {
        Self { probe_timeout: Some(Arc::new(Mutex::new(PROBE_TIMEOUT))), ..self.clone() }
    }

    /// Timeout of the next GET request.
    fn answer_timeout(&self) -> Duration {
        match &self.probe_timeout {
            Some(timeout) => *timeout.lock().unwrap_or_else(PoisonError::into_inner),
            None => REQUEST_TIMEOUT,
        }
    }

    /// Sets the probing timeout to twice the time of the answer, or makes it longer after a timeout. A refused connection
    /// changes nothing.
    fn adapt_probe_timeout<T>(&self, outcome: &Result<T>, took: Duration) {
        let Some(timeout) = &self.probe_timeout else { return };
        let mut timeout = timeout.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = |error: &anyhow::Error| {
            error.chain().any(|cause| matches!(cause.downcast_ref(), Some(ureq::Error::Timeout(_))))
        };
        *timeout = match outcome {
            Ok(_) => PROBE_TIMEOUT.max(2 * took),
            Err(error) if error.is::<Refusal>() => PROBE_TIMEOUT.max(2 * took),
            Err(error) if silence(error) => timeout.mul_f64(PROBE_BACKOFF),
            Err(_) => *timeout,
        }
        .min(REQUEST_TIMEOUT);
    }

    /// The node's address, as given to [`Client::new`].
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `GET /api/v1/{path}`; returns the answer's JSON.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn get(&self, path: &str) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.get(self.url(path)));
            with_timeout(request, self.answer_timeout()).call()
        })
    }

    /// `GET /api/v1/{path}`, repeated until the node answers with success; `node` names the node in the error.
    ///
    /// # Errors
    /// The node does not answer with success within `deadline`.
    pub fn get_after_boot(&self, node: &str, deadline: Duration, path: &str) -> Result<Value> {
        let probing = self.probing();
        wait::until_ok(&format!("{node} to answer"), deadline, || probing.get(path))
    }

    /// Reads the metrics in Prometheus text form.
    ///
    /// # Errors
    /// The node is away or refuses.
    pub fn metrics(&self) -> Result<String> {
        let answer = self.exchange("metrics", || {
            with_timeout(self.agent.get(format!("{}/metrics", self.address)), REQUEST_TIMEOUT).call()
        })?;
        Ok(answer.as_str().context("The metrics are not text.")?.to_owned())
    }

    /// `POST /api/v1/{path}` with `body`; returns the answer's JSON.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.post(self.url(path)));
            with_timeout(request, LONG_REQUEST_TIMEOUT).content_type("application/json").send(body.to_string())
        })
    }

    /// `DELETE /api/v1/{path}`; returns the answer's JSON.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.delete(self.url(path)));
            with_timeout(request, REQUEST_TIMEOUT).call()
        })
    }

    /// `PUT /api/v1/{path}` with the content of `file` as the raw body.
    ///
    /// # Errors
    /// The file cannot be read, the node is away, or a [`Refusal`].
    pub fn put_file(&self, path: &str, file: &Path) -> Result<Value> {
        let content = std::fs::read(file).with_context(|| format!("Cannot read {}.", file.display()))?;
        self.exchange(path, || {
            let request = self.authorized(self.agent.put(self.url(path)));
            with_timeout(request, LONG_REQUEST_TIMEOUT).content_type("application/octet-stream").send(&content[..])
        })
    }

    /// Reads the endless text at `/api/v1/{path}` and calls `take` with each complete line, until the text ends,
    /// [`FOLLOW_TIMEOUT`] is over, or `take` returns false.
    ///
    /// # Errors
    /// The node is away, refuses, or the stream broke.
    pub fn follow(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        let answer = self.send(path, || {
            let request = self.authorized(self.agent.get(self.url(path)));
            let timeout = Some(self.answer_timeout());
            let config = request.config().timeout_connect(timeout).timeout_send_request(timeout);
            config.timeout_recv_response(timeout).timeout_recv_body(Some(FOLLOW_TIMEOUT)).build().call()
        });
        self.adapt_probe_timeout(&answer, start.elapsed());
        let answer = answer?;
        let mut lines = BufReader::new(answer.into_body().into_reader());
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            // A last line without its end was cut off when the node ended, and could be read as another, shorter line.
            if !line.ends_with(b"\n") || !take(String::from_utf8_lossy(&line).trim_end()) {
                break;
            }
            line.clear();
        }
        Ok(())
    }

    fn exchange(&self, path: &str, ask: impl Fn() -> HttpResult) -> Result<Value> {
        let start = Instant::now();
        let outcome = self.send(path, ask).and_then(|answer| body(path, answer));
        self.adapt_probe_timeout(&outcome, start.elapsed());
        outcome
    }

    /// Sends a request. If the node answers 401 and this client has a password, logs in and sends it once more.
    fn send(&self, path: &str, ask: impl Fn() -> HttpResult) -> Result<Response<Body>> {
        let mut answer = ask().with_context(|| format!("No answer to {path}."))?;
        if answer.status().as_u16() == 401
            && let Some(password) = &self.password
        {
            self.log_in_with(password)?;
            answer = ask().with_context(|| format!("No answer to {path}."))?;
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(Refusal { status: answer.status().as_u16(), body: body(path, answer)? }.into())
    }

    /// Logs in, also after an earlier login: a node that restarts forgets its sessions, and answers such as the status
    /// then lack the part for logged-in users without an error.
    ///
    /// # Errors
    /// The client has no password, or the node refuses it.
    pub fn log_in(&self) -> Result<()> {
        self.log_in_with(self.password.as_deref().context("This client has no password.")?)
    }

    fn log_in_with(&self, password: &str) -> Result<()> {
        let request = self.agent.post(self.url("login"));
        let answer = with_timeout(request, REQUEST_TIMEOUT)
            .content_type("application/json")
            .send(json!({"password": password}).to_string())
            .context("No answer to the login.")?;
        let answer = body("login", answer)?;
        let token = answer["token"].as_str().with_context(|| format!("The login answered {answer}."))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.address)
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

type HttpResult = Result<Response<Body>, ureq::Error>;

fn with_timeout<B>(request: RequestBuilder<B>, deadline: Duration) -> RequestBuilder<B> {
    request.config().timeout_global(Some(deadline)).build()
}

fn body(path: &str, mut answer: Response<Body>) -> Result<Value> {
    let text = answer.body_mut().read_to_string().with_context(|| format!("The answer to {path} broke off."))?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
