//! Setup of nodes through the API of the wizard (`/api/v1/setup`).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::Client;
use crate::seed::PASSWORD;
use crate::wait::{self, Poll};

/// Longest setup of an emulated node: it formats disks, copies the document, and restarts to prove its watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);

/// Role of a node at setup: the first node of a new pair, or a node that joins.
enum Role {
    First,
    Join,
}

/// Answers that are needed for both roles: all disks and links that the node lists.
fn common_answers(client: &Client, role: Role) -> Result<Value> {
    let (role, node) = match role {
        Role::First => ("first", "left"),
        Role::Join => ("join", "right"),
    };
    let setup = client.get("setup")?;
    let disks = texts(&setup["disks"], "path")?;
    let names: Vec<_> = disks.iter().filter_map(|path| path.rsplit('/').next()).collect();
    let mut answers = json!({
        "role": role,
        "node": node,
        "disks": disks,
        // The confirmation of what is erased, as a person must type it.
        "erase": format!("erase {}", names.join(" ")),
    });
    let port = suggested_answer(&setup, "port");
    if let Some(port) = &port {
        answers["port"] = json!(port);
        answers["network"] = json!("dhcp");
    }
    let links: Vec<_> =
        texts(&setup["links"], "name")?.into_iter().filter(|link| Some(link) != port.as_ref()).collect();
    if !links.is_empty() {
        answers["peer_links"] = json!(links);
    }
    Ok(answers)
}

/// Answers for the first node of a pair, without a witness.
///
/// # Errors
/// The node does not list its disks and ports.
pub fn first_node_answers(client: &Client) -> Result<Value> {
    let mut answers = common_answers(client, Role::First)?;
    answers["pair"] = json!("rig");
    answers["password"] = json!(PASSWORD);
    answers["witness"] = json!("later");
    Ok(answers)
}

/// Address and one-time code of a witness, as an administrator types them.
#[derive(Debug, Clone, Copy)]
pub struct Witness<'a> {
    pub address: &'a str,
    pub code: &'a str,
}

/// Makes the node behind `client` the first node of a new pair, and waits until it is set up.
///
/// # Errors
/// The node refuses the answers or the setup fails; the error holds the node's sentence.
pub fn create_pair(client: &Client, witness: Witness<'_>) -> Result<()> {
    let mut answers = first_node_answers(client)?;
    answers["witness"] = json!(witness.address);
    answers["witness_code"] = json!(witness.code);
    begin_and_wait(client, &answers)
}

/// Opens a pairing code on the first node and returns it.
///
/// # Errors
/// The node refuses.
pub fn pairing_code(first: &Client) -> Result<String> {
    let answer = first.post("pairing-code", &json!({}))?;
    Ok(answer["code"].as_str().with_context(|| format!("No code in {answer}."))?.to_owned())
}

/// Joins the node behind `client` to the pair whose pairing code is `code`, and waits until it is set up.
///
/// # Errors
/// The node receives no offer of a first node, refuses the answers, or the setup fails.
pub fn join(client: &Client, code: &str) -> Result<()> {
    wait::until("the joining node to hear the first one", Duration::from_secs(60), || {
        let offers = client.get("setup/offers")?;
        let heard = offers.as_array().is_some_and(|offers| !offers.is_empty());
        Ok(if heard { Poll::Ready(()) } else { Poll::NotYet(offers.to_string()) })
    })?;
    let mut answers = common_answers(client, Role::Join)?;
    answers["code"] = json!(code);
    begin_and_wait(client, &answers)
}

/// Sends answers that the node accepts and with which the setup must fail; returns the sentence of the failure.
///
/// # Errors
/// The node refuses the answers, the setup succeeds, or the node is not blank afterwards.
pub fn begin_and_expect_failure(client: &Client, answers: &Value) -> Result<String> {
    client.post("setup", answers).context("The wizard refused the answers")?;
    wait::until("setup to fail", SETUP_DEADLINE, || {
        let setup = client.get("setup")?;
        if setup["task"]["finished"] != true {
            return Ok(Poll::NotYet(setup["task"].to_string()));
        }
        ensure!(setup["phase"] == "blank", "The node is {}.", setup["phase"]);
        let error = setup["task"]["error"]["error"].as_str();
        Ok(Poll::Ready(error.with_context(|| format!("Setup worked: {setup}"))?.to_owned()))
    })
}

/// Sends the answers and waits until the node is set up.
///
/// # Errors
/// The node refuses the answers or the setup fails; the error holds the node's sentence.
pub fn begin_and_wait(client: &Client, answers: &Value) -> Result<()> {
    client.post("setup", answers).context("The wizard refused the answers")?;
    wait_until_finished(client)
}

/// Waits until a setup that has begun, also from a seed volume, is finished; prints each step.
///
/// # Errors
/// The setup fails; the error holds the node's sentence.
pub fn wait_until_finished(client: &Client) -> Result<()> {
    let begin = Instant::now();
    let mut shown = String::new();
    let client = client.probing();
    wait::until("setup to finish", SETUP_DEADLINE, || {
        let setup = match client.get("setup") {
            Ok(setup) => setup,
            // A node may change its address or restart a program during setup.
            Err(error) => return Ok(Poll::NotYet(format!("{error:#}"))),
        };
        if let Some(error) = setup["task"]["error"]["error"].as_str() {
            bail!("Setup failed: {error}");
        }
        if let Some(step) = running_step(&setup).filter(|step| *step != shown) {
            println!("    {:5.1} s {step}", begin.elapsed().as_secs_f64());
            step.clone_into(&mut shown);
        }
        let done = setup["phase"] == "running" && setup["task"]["finished"] != false;
        Ok(if done { Poll::Ready(()) } else { Poll::NotYet(setup["task"].to_string()) })
    })
}

/// Text of the setup step that runs now, from an answer of `GET /api/v1/setup`.
pub fn running_step(setup: &Value) -> Option<&str> {
    let steps = setup["task"]["steps"].as_array()?;
    steps.iter().find(|step| step["state"] == "running")?["text"].as_str()
}

fn suggested_answer(setup: &Value, key: &str) -> Option<String> {
    let questions = setup["questions"].as_array()?;
    let question = questions.iter().find(|question| question["key"] == key)?;
    question["suggestion"].as_str().map(str::to_owned)
}

fn texts(entries: &Value, field: &str) -> Result<Vec<String>> {
    let entries = entries.as_array().with_context(|| format!("No list: {entries}"))?;
    entries
        .iter()
        .map(|entry| Ok(entry[field].as_str().with_context(|| format!("No {field}: {entry}"))?.to_owned()))
        .collect()
}
