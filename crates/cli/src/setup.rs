//! `dyad setup`: sends a seed file and prints the steps of the setup until it has ended.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dyad_api::{ApiError, SetupPhase, SetupReply, StepState};
use dyad_wizard::Problem;

use crate::client::Client;

const SETUP_POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Limit of the time without a reply: the node may restart to prove its watchdog.
const NODE_RESTART_TIMEOUT: Duration = Duration::from_secs(180);

/// Sends the seed file and prints each step until the setup has ended.
///
/// # Errors
///
/// The node refuses, a step fails, or the node does not answer for [`NODE_RESTART_TIMEOUT`].
pub(crate) fn run(client: &mut Client, seed: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(seed).with_context(|| format!("{} cannot be read", seed.display()))?;
    let unreadable = |error: toml::de::Error| {
        let line = error.message().lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
        ApiError::from(Problem::Unreadable(line))
    };
    // The node checks the keys, so that its sentences are the same as in the wizard.
    let answers: toml::Table = text.parse().map_err(unreadable)?;
    let mut reply: SetupReply = client.post("setup", &answers)?;
    let mut printed_steps = 0;
    let mut last_reply = Instant::now();
    loop {
        if let Some(task) = &reply.task {
            for step in task.steps.iter().skip(printed_steps).take_while(|step| step.state != StepState::Waiting) {
                println!("{}", step.text);
                printed_steps += 1;
            }
            if let Some(error) = &task.error {
                return Err(error.clone().into());
            }
            if task.finished {
                return Ok(());
            }
        } else if reply.phase == SetupPhase::Running {
            // The node has restarted and is a member of the pair.
            return Ok(());
        }
        std::thread::sleep(SETUP_POLL_INTERVAL);
        match client.get("setup") {
            Ok(newer) => {
                reply = newer;
                last_reply = Instant::now();
            }
            Err(error) if last_reply.elapsed() > NODE_RESTART_TIMEOUT => return Err(error),
            Err(_) => {}
        }
        if reply.phase == SetupPhase::Blank && reply.task.is_none() {
            bail!("{} restarted before it was set up: try again", client.node());
        }
    }
}
