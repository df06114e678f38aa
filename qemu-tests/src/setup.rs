//! Sets nodes up through the web wizard's API, as a browser does.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::Client;
use crate::seed::PASSWORD;
use crate::wait::{self, Look};

/// Longest setup of an emulated node: disks are formatted, the document is copied, and the node restarts to prove its
/// watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);

enum Role {
    First,
    Join,
}

/// The answers that first and second node have in common.
fn common(client: &Client, role: Role) -> Result<Value> {
    let (role, node) = match role {
        Role::First => ("first", "left"),
        Role::Join => ("join", "right"),
    };
    let setup = client.get("setup")?;
    let disks = list(&setup["disks"], "path")?;
    let names: Vec<_> = disks.iter().filter_map(|path| path.rsplit('/').next()).collect();
    let mut answers = json!({
        "role": role,
        "node": node,
        "disks": disks,
        // The typed confirmation, word for word.
        "erase": format!("erase {}", names.join(" ")),
    });
    let port = suggestion(&setup, "port");
    if let Some(port) = &port {
        answers["port"] = json!(port);
        answers["network"] = json!("dhcp");
    }
    let links: Vec<_> = list(&setup["links"], "name")?.into_iter().filter(|link| Some(link) != port.as_ref()).collect();
    if !links.is_empty() {
        answers["peer_links"] = json!(links);
    }
    Ok(answers)
}

/// The first node's answers, without a witness yet.
///
/// # Errors
/// The node does not list its disks and ports.
pub fn first_answers(client: &Client) -> Result<Value> {
    let mut answers = common(client, Role::First)?;
    answers["pair"] = json!("rig");
    answers["password"] = json!(PASSWORD);
    answers["witness"] = json!("later");
    Ok(answers)
}

/// A witness as an administrator types it.
#[derive(Debug, Clone, Copy)]
pub struct Witness<'a> {
    pub address: &'a str,
    pub code: &'a str,
}

/// Makes the node behind `client` the first of a new pair.
///
/// # Errors
/// The node refuses or fails; the error holds its sentence.
pub fn create_pair(client: &Client, witness: Witness<'_>) -> Result<()> {
    let mut answers = first_answers(client)?;
    answers["witness"] = json!(witness.address);
    answers["witness_code"] = json!(witness.code);
    begin(client, &answers)
}

/// Opens the pairing code on the first node.
///
/// # Errors
/// The node refuses.
pub fn pairing_code(first: &Client) -> Result<String> {
    let answer = first.post("pairing-code", &json!({}))?;
    Ok(answer["code"].as_str().with_context(|| format!("No code in {answer}."))?.to_owned())
}

/// Makes the node behind `client` join the pair that shows `code`.
///
/// # Errors
/// The node does not hear the first one, refuses or fails.
pub fn join(client: &Client, code: &str) -> Result<()> {
    wait::until("the joining node to hear the first one", Duration::from_secs(60), || {
        let offers = client.get("setup/offers")?;
        let heard = offers.as_array().is_some_and(|offers| !offers.is_empty());
        Ok(if heard { Look::Ready(()) } else { Look::NotYet(offers.to_string()) })
    })?;
    let mut answers = common(client, Role::Join)?;
    answers["code"] = json!(code);
    begin(client, &answers)
}

/// Sends answers that the node accepts and whose setup fails; returns the sentence of the failure.
///
/// # Errors
/// The node refuses them, or is set up, or is not blank afterwards.
pub fn failed(client: &Client, answers: &Value) -> Result<String> {
    client.post("setup", answers).context("The wizard refused the answers")?;
    wait::until("setup to fail", SETUP_DEADLINE, || {
        let setup = client.get("setup")?;
        if setup["task"]["finished"] != true {
            return Ok(Look::NotYet(setup["task"].to_string()));
        }
        ensure!(setup["phase"] == "blank", "The node is {}.", setup["phase"]);
        let error = setup["task"]["error"]["error"].as_str();
        Ok(Look::Ready(error.with_context(|| format!("Setup worked: {setup}"))?.to_owned()))
    })
}

/// Sends the answers and waits for the end of the task they start.
///
/// # Errors
/// The node refuses or fails; the error holds its sentence.
pub fn begin(client: &Client, answers: &Value) -> Result<()> {
    client.post("setup", answers).context("The wizard refused the answers")?;
    finish(client)
}

/// Waits for the end of the setup that a person or a seed volume began.
///
/// # Errors
/// The node refuses or fails; the error holds its sentence.
pub fn finish(client: &Client) -> Result<()> {
    let begin = Instant::now();
    let mut shown = String::new();
    let client = client.probing();
    wait::until("setup to finish", SETUP_DEADLINE, || {
        let setup = match client.get("setup") {
            Ok(setup) => setup,
            // A node may change its address or restart a program during setup.
            Err(error) => return Ok(Look::NotYet(format!("{error:#}"))),
        };
        if let Some(error) = setup["task"]["error"]["error"].as_str() {
            bail!("Setup failed: {error}");
        }
        if let Some(step) = running_step(&setup).filter(|step| *step != shown) {
            println!("    {:5.1} s {step}", begin.elapsed().as_secs_f64());
            step.clone_into(&mut shown);
        }
        let done = setup["phase"] == "running" && setup["task"]["finished"] != false;
        Ok(if done { Look::Ready(()) } else { Look::NotYet(setup["task"].to_string()) })
    })
}

/// The step of the setup that is under way, as the node names it.
pub fn running_step(setup: &Value) -> Option<&str> {
    let steps = setup["task"]["steps"].as_array()?;
    steps.iter().find(|step| step["state"] == "running")?["text"].as_str()
}

fn suggestion(setup: &Value, key: &str) -> Option<String> {
    let questions = setup["questions"].as_array()?;
    let question = questions.iter().find(|question| question["key"] == key)?;
    question["suggestion"].as_str().map(str::to_owned)
}

fn list(entries: &Value, field: &str) -> Result<Vec<String>> {
    let entries = entries.as_array().with_context(|| format!("No list: {entries}"))?;
    entries
        .iter()
        .map(|entry| Ok(entry[field].as_str().with_context(|| format!("No {field}: {entry}"))?.to_owned()))
        .collect()
}
