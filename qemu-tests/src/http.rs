//! A client of a node's API, written against the OpenAPI document alone.

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

/// Longest time on one followed stream. A node that its watchdog resets does not close its connections, so the client
/// connects again after this time. Lines that the node
/// repeats then change nothing.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of one request. An emulated node answers in tens of milliseconds; a loaded node may take seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// First timeout of a [probing](Client::probing) client, and the factor by which it grows after each timeout.
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
const PROBE_BACKOFF: f64 = 1.1;
/// Timeout of requests that form a pair or fill a volume: they move megabytes through two emulated nodes.
const WORK_DEADLINE: Duration = Duration::from_secs(300);

/// One node's API, perhaps with a login.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    address: String,
    password: Option<String>,
    token: Arc<Mutex<Option<String>>>,
    /// Timeout of the next request of a probing client.
    probe_timeout: Option<Arc<Mutex<Duration>>>,
}

/// A request that the node understood and refused.
#[derive(Debug)]
pub struct Refusal {
    /// Status code of HTTP.
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
    /// A client of the node at `address` (`https://host:port`). The node's certificate is self-signed, so any
    /// certificate is
    /// accepted here.
    pub fn new(address: &str) -> Self {
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().disable_verification(true).build())
            .timeout_connect(Some(ANSWER_DEADLINE))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Self { agent, address: address.to_owned(), password: None, token: Arc::default(), probe_timeout: None }
    }

    /// The same, as the administrator: it logs in when the node asks for it, also after the node was away.
    #[must_use]
    pub fn as_administrator(self, password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..self }
    }

    /// The same, for a node that may be away or booting. QEMU accepts the connection at once and retries towards the
    /// node ever more
    /// rarely, so a new request is answered sooner than an old one. This client therefore begins with a short timeout
    /// and lengthens it, because
    /// a loaded node needs longer.
    pub fn probing(&self) -> Self {
        Self { probe_timeout: Some(Arc::new(Mutex::new(PROBE_TIMEOUT))), ..self.clone() }
    }

    /// How long to wait for an answer now.
    fn answer_timeout(&self) -> Duration {
        match &self.probe_timeout {
            Some(timeout) => *timeout.lock().unwrap_or_else(PoisonError::into_inner),
            None => ANSWER_DEADLINE,
        }
    }

    /// Adapts the timeout after an answer or a timeout. A refused connection changes nothing.
    fn learn<T>(&self, outcome: &Result<T>, took: Duration) {
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
        .min(ANSWER_DEADLINE);
    }

    /// The node's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Reads `/api/v1/{path}`.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn get(&self, path: &str) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.get(self.url(path)));
            within(request, self.answer_timeout()).call()
        })
    }

    /// Reads `/api/v1/{path}` as soon as the node answers; `who` names the node in the error.
    ///
    /// # Errors
    /// The node does not answer with success within `deadline`.
    pub fn get_after_boot(&self, who: &str, deadline: Duration, path: &str) -> Result<Value> {
        let probing = self.probing();
        wait::until_ok(&format!("{who} to answer"), deadline, || probing.get(path))
    }

    /// Reads the metrics in Prometheus text form.
    ///
    /// # Errors
    /// The node is away or refuses.
    pub fn metrics(&self) -> Result<String> {
        let answer = self.exchange("metrics", || {
            within(self.agent.get(format!("{}/metrics", self.address)), ANSWER_DEADLINE).call()
        })?;
        Ok(answer.as_str().context("The metrics are not text.")?.to_owned())
    }

    /// Sends `body` to `/api/v1/{path}`.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.post(self.url(path)));
            within(request, WORK_DEADLINE).content_type("application/json").send(body.to_string())
        })
    }

    /// Deletes `/api/v1/{path}`.
    ///
    /// # Errors
    /// The node is away, or a [`Refusal`].
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.exchange(path, || {
            let request = self.authorized(self.agent.delete(self.url(path)));
            within(request, ANSWER_DEADLINE).call()
        })
    }

    /// Uploads `file` as the raw body of `/api/v1/{path}`.
    ///
    /// # Errors
    /// The file cannot be read, the node is away, or a [`Refusal`].
    pub fn put_file(&self, path: &str, file: &Path) -> Result<Value> {
        let content = std::fs::read(file).with_context(|| format!("Cannot read {}.", file.display()))?;
        self.exchange(path, || {
            let request = self.authorized(self.agent.put(self.url(path)));
            within(request, WORK_DEADLINE).content_type("application/octet-stream").send(&content[..])
        })
    }

    /// Follows the endless text at `/api/v1/{path}`, whole line by whole line, until it ends or `take` says no.
    ///
    /// # Errors
    /// The node is away, refuses, or the stream broke.
    pub fn follow(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        let answer = self.answer(path, || {
            let request = self.authorized(self.agent.get(self.url(path)));
            let timeout = Some(self.answer_timeout());
            let config = request.config().timeout_connect(timeout).timeout_send_request(timeout);
            config.timeout_recv_response(timeout).timeout_recv_body(Some(FOLLOW_TIMEOUT)).build().call()
        });
        self.learn(&answer, start.elapsed());
        let answer = answer?;
        let mut lines = BufReader::new(answer.into_body().into_reader());
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            // A line that the end of the node cut off may read as a different, shorter statement.
            if !line.ends_with(b"\n") || !take(String::from_utf8_lossy(&line).trim_end()) {
                break;
            }
            line.clear();
        }
        Ok(())
    }

    fn exchange(&self, path: &str, ask: impl Fn() -> Asked) -> Result<Value> {
        let start = Instant::now();
        let outcome = self.answer(path, ask).and_then(|answer| body(path, answer));
        self.learn(&outcome, start.elapsed());
        outcome
    }

    /// Asks; when the node wants a login and we have a password, logs in and asks once more.
    fn answer(&self, path: &str, ask: impl Fn() -> Asked) -> Result<Response<Body>> {
        let mut answer = ask().with_context(|| format!("No answer to {path}."))?;
        if answer.status().as_u16() == 401
            && let Some(password) = &self.password
        {
            self.login(password)?;
            answer = ask().with_context(|| format!("No answer to {path}."))?;
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(Refusal { status: answer.status().as_u16(), body: body(path, answer)? }.into())
    }

    /// Logs in, also after an earlier login: a node forgets its sessions when it restarts, and the public form of an
    /// answer
    /// looks much like the form for a logged-in client.
    ///
    /// # Errors
    /// The client has no password, or the node refuses it.
    pub fn log_in(&self) -> Result<()> {
        self.login(self.password.as_deref().context("This client has no password.")?)
    }

    fn login(&self, password: &str) -> Result<()> {
        let request = self.agent.post(self.url("login"));
        let answer = within(request, ANSWER_DEADLINE)
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

type Asked = Result<Response<Body>, ureq::Error>;

fn within<B>(request: RequestBuilder<B>, deadline: Duration) -> RequestBuilder<B> {
    request.config().timeout_global(Some(deadline)).build()
}

fn body(path: &str, mut answer: Response<Body>) -> Result<Value> {
    let text = answer.body_mut().read_to_string().with_context(|| format!("The answer to {path} broke off."))?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
