//! The fields of a node's status and of its VM list that the tests use.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::http::Client;

/// One answer of `GET /api/v1/status`.
#[derive(Debug, Clone)]
pub struct Status {
    /// The sentence that describes the state of the pair.
    pub sentence: String,
    /// Whether the node says that nothing is missing: both replicas in sync, no alarm.
    pub protected: bool,
    /// Newest epoch that the node knows; 0 before the pair exists.
    pub epoch: u64,
    /// The whole answer, with the details if the client was logged in.
    pub json: Value,
}

impl Status {
    /// Asks the node for the status with all details; logs in if the answer lacks them.
    ///
    /// # Errors
    /// The node does not answer, answers in another form, or refuses the login.
    pub fn in_detail(client: &Client) -> Result<Self> {
        let status = Self::read(client)?;
        if !status.json["details"].is_null() {
            return Ok(status);
        }
        client.log_in()?;
        Self::read(client)
    }

    /// Asks the node for its status; without a login it has the public part only.
    ///
    /// # Errors
    /// The node does not answer, or answers in another form.
    pub fn read(client: &Client) -> Result<Self> {
        let json = client.get("status")?;
        let sentence = json["sentence"].as_str().with_context(|| format!("The status is {json}."))?;
        Ok(Self {
            sentence: sentence.to_owned(),
            protected: json["protected"] == true,
            epoch: json["epoch"].as_u64().unwrap_or(0),
            json,
        })
    }

    /// The in-sync set as the node knows it, such as `A` or `AB`.
    pub fn members(&self) -> String {
        let members = self.json["details"]["members"].as_array();
        members.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The number `details/mirror/{field}`, such as `resync_bytes`.
    ///
    /// # Errors
    /// The answer lacks it.
    pub fn mirror_figure(&self, field: &str) -> Result<u64> {
        let value = &self.json["details"]["mirror"][field];
        value.as_u64().with_context(|| format!("The status tells no mirror/{field}: {}", self.json))
    }
}

/// Name of a VM's state in the API, such as `running`.
#[derive(Debug, Clone, Copy)]
pub struct VmState<'a>(pub &'a str);

/// State of a VM as one node reports it, such as `running` or `elsewhere`.
///
/// # Errors
/// The node does not answer or has no such VM.
pub fn vm_state(client: &Client, vm: &str) -> Result<String> {
    let vms = client.get("vms")?;
    let found = vms.as_array().into_iter().flatten().find(|view| view["name"] == vm);
    let state = found.and_then(|view| view["state"].as_str());
    Ok(state.with_context(|| format!("There is no VM {vm}: {vms}"))?.to_owned())
}

/// Waits until the node reports this state of the VM; returns the time at which it did.
///
/// # Errors
/// The VM does not reach the state within `deadline`.
pub fn wait_vm_state(client: &Client, vm: &str, VmState(state): VmState<'_>, deadline: Duration) -> Result<Instant> {
    crate::wait::until_ok(&format!("{vm} to be {state} at {}", client.address()), deadline, || {
        let seen = vm_state(client, vm)?;
        anyhow::ensure!(seen == state, "it is {seen}");
        Ok(Instant::now())
    })
}
