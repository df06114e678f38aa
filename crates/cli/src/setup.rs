//! `dyad setup`: sends a seed file and shows the steps until they are done.

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
/// Longest time without an answer: the node may restart to prove its watchdog.
const NODE_RESTART_TIMEOUT: Duration = Duration::from_secs(180);

/// Sends the seed file and prints each step until the setup has ended.
///
/// # Errors
///
/// The refusal of the node, the error of a failed step, or no answer for [`NODE_RESTART_TIMEOUT`].
pub(crate) fn run(client: &mut Client, seed: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(seed).with_context(|| format!("{} cannot be read", seed.display()))?;
    let unreadable = |error: toml::de::Error| {
        let line = error.message().lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
        ApiError::from(Problem::Unreadable(line))
    };
    // The keys are checked by the node, with the same sentences as everywhere.
    let answers: toml::Table = text.parse().map_err(unreadable)?;
    let mut reply: SetupReply = client.post("setup", &answers)?;
    let mut told = 0;
    let mut seen = Instant::now();
    loop {
        if let Some(task) = &reply.task {
            for step in task.steps.iter().skip(told).take_while(|step| step.state != StepState::Waiting) {
                println!("{}", step.text);
                told += 1;
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
                seen = Instant::now();
            }
            Err(error) if seen.elapsed() > NODE_RESTART_TIMEOUT => return Err(error),
            Err(_) => {}
        }
        if reply.phase == SetupPhase::Blank && reply.task.is_none() {
            bail!("{} restarted before it was set up: try again", client.node());
        }
    }
}
