//! Setup: carries out a [`SetupPlan`] as a list of named steps, and reports the progress for the snapshot.

use std::{sync::Arc, time::Duration};

use dyad_api::{ApiError, ErrorCode, StepState, StepView, TaskView};
use dyad_control::{Client, CreatePair, Enrol, Join, Phase, RefusalCode, Request, WatchdogStatus};
use dyad_wizard::{SetupPlan, WitnessPlan};

use crate::{
    network::{NetworkSetup, NetworkSetupError},
    password,
};

/// Limit for the core to open its pool after formatting. It usually takes seconds; with a disk that does not answer, up to
/// 1 min.
const POOL_OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// Delay before the next connection to a core that ended the connection: the core restarts itself once during setup.
const SETUP_RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// One setup: its plan, and the network that it changes.
pub(crate) struct SetupRun {
    plan: SetupPlan,
    network: Arc<dyn NetworkSetup>,
}

/// A report about the progress of a setup.
#[derive(Debug, Clone)]
pub(crate) enum SetupProgress {
    /// The step with this index has begun; the steps before it are done.
    StepBegun(usize),
    /// All steps are done.
    Done,
    /// The running step failed with this error.
    Failed(ApiError),
}

#[derive(Clone, Copy)]
enum SetupStep {
    Network,
    CreatePair,
    /// One step of the core: it enrols at the witness before it writes to a disk, so that a wrong code changes nothing.
    EnrolAndCreatePair,
    Join,
    OpenPool,
    ProveWatchdog,
}

impl SetupStep {
    /// The words that people see for the step.
    fn text(self) -> &'static str {
        match self {
            SetupStep::Network => "set up the network",
            SetupStep::CreatePair => "format the disks and begin the pair",
            SetupStep::EnrolAndCreatePair => "enrol at the witness, format the disks and begin the pair",
            SetupStep::Join => "prove the pairing code, format the disks and join",
            SetupStep::OpenPool => "open the pool",
            SetupStep::ProveWatchdog => "prove the watchdog, for which this node restarts once",
        }
    }
}

impl SetupProgress {
    /// Applies this report to the view of the task.
    pub(crate) fn apply_to(&self, task: &mut TaskView) {
        let running = task.steps.iter().position(|s| s.state == StepState::Running);
        match self {
            SetupProgress::StepBegun(at) => {
                for (i, step) in task.steps.iter_mut().enumerate() {
                    if i < *at {
                        step.state = StepState::Done;
                    } else if i == *at {
                        step.state = StepState::Running;
                    }
                }
            }
            SetupProgress::Done => {
                task.finished = true;
                task.steps.iter_mut().for_each(|step| step.state = StepState::Done);
            }
            SetupProgress::Failed(error) => {
                task.finished = true;
                task.error = Some(error.clone());
                if let Some(at) = running {
                    task.steps[at].state = StepState::Failed;
                }
            }
        }
    }
}

impl SetupRun {
    pub(crate) fn new(plan: SetupPlan, network: Arc<dyn NetworkSetup>) -> Self {
        SetupRun { plan, network }
    }

    fn steps(&self) -> Vec<SetupStep> {
        let (network, pair_step) = match &self.plan {
            SetupPlan::First { network, witness: Some(_), .. } => (network, SetupStep::EnrolAndCreatePair),
            SetupPlan::First { network, .. } => (network, SetupStep::CreatePair),
            SetupPlan::Join { network, .. } => (network, SetupStep::Join),
        };
        let mut steps = vec![pair_step, SetupStep::OpenPool, SetupStep::ProveWatchdog];
        if network.is_some() {
            steps.insert(0, SetupStep::Network);
        }
        steps
    }

    /// Names of the peer link ports. If empty, the core uses the ports of its own command line.
    fn peer_links(&self) -> Vec<String> {
        let (SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) = &self.plan;
        network.as_ref().map(|network| network.peer_links.clone()).unwrap_or_default()
    }

    /// The view of this setup before its first step.
    pub(crate) fn initial_view(&self) -> TaskView {
        let step = |step: SetupStep| StepView { text: step.text().into(), state: StepState::Waiting };
        TaskView { finished: false, error: None, steps: self.steps().into_iter().map(step).collect() }
    }

    /// Runs all steps until one fails, and calls `report` at each step and at the end.
    pub(crate) async fn carry_out(self, core: &Client, report: impl Fn(SetupProgress)) {
        for (i, step) in self.steps().into_iter().enumerate() {
            report(SetupProgress::StepBegun(i));
            if let Err(error) = self.run_step(step, core).await {
                tracing::warn!("setup failed, {}: {error}", step.text());
                self.undo_network(core).await;
                return report(SetupProgress::Failed(error));
            }
        }
        report(SetupProgress::Done);
    }

    /// After a failed setup of a node that is still blank, returns the network to its state before, so that the wizard is
    /// reachable at the same address.
    async fn undo_network(&self, core: &Client) {
        let (SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) = &self.plan;
        let blank = core.status().await.is_ok_and(|status| status.phase == Phase::Blank);
        if network.is_some()
            && blank
            && let Err(error) = self.network.undo().await
        {
            tracing::error!("the network settings were not undone: {error}");
        }
    }

    async fn run_step(&self, step: SetupStep, core: &Client) -> Result<(), ApiError> {
        match (step, &self.plan) {
            (SetupStep::Network, SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) => match network {
                Some(settings) => {
                    let failed = |error: NetworkSetupError| ApiError::new(ErrorCode::Network, error.to_string());
                    self.network.apply(settings.clone()).await.map_err(failed)
                }
                None => Ok(()),
            },
            (
                SetupStep::CreatePair | SetupStep::EnrolAndCreatePair,
                SetupPlan::First { pair, node, disks, password, witness, .. },
            ) => {
                let enrol = |at: &WitnessPlan| Enrol { address: at.address.clone(), code: at.code.clone() };
                let create = CreatePair {
                    pair: pair.clone(),
                    node: node.clone(),
                    disks: disks.clone(),
                    links: self.peer_links(),
                    admin_password_hash: password::hash(password).await?,
                    witness: witness.as_ref().map(enrol),
                };
                core.ask(&Request::CreatePair(create)).await?;
                Ok(())
            }
            (SetupStep::Join, SetupPlan::Join { node, disks, code, pair_id, .. }) => {
                let join = Join {
                    node: node.clone(),
                    disks: disks.clone(),
                    links: self.peer_links(),
                    code: code.clone(),
                    pair_id: pair_id.clone(),
                };
                core.ask(&Request::Join(join)).await?;
                Ok(())
            }
            (SetupStep::OpenPool, _) => wait_for_pool(core).await,
            (SetupStep::ProveWatchdog, _) => prove_watchdog(core).await,
            // `steps` returns only steps of this plan.
            (SetupStep::CreatePair | SetupStep::EnrolAndCreatePair | SetupStep::Join, _) => Ok(()),
        }
    }
}

/// Waits until the core runs with its pool open. The core restarts itself once meanwhile.
async fn wait_for_pool(core: &Client) -> Result<(), ApiError> {
    let waiting = async {
        loop {
            if let Ok(mut watch) = core.watch().await {
                while let Ok(status) = watch.next().await {
                    match status.phase {
                        Phase::Running => return Ok(()),
                        Phase::Broken { sentence } => return Err(ApiError::new(RefusalCode::Broken, sentence)),
                        Phase::Blank | Phase::SettingUp { .. } => {}
                    }
                }
            }
            tokio::time::sleep(SETUP_RECONNECT_DELAY).await;
        }
    };
    let late = || {
        ApiError::new(ErrorCode::PoolLate, "The pool did not open within two minutes: look at the log of this node.")
    };
    tokio::time::timeout(POOL_OPEN_TIMEOUT, waiting).await.map_err(|_| late())?
}

/// Asks the core to stop feeding the watchdog, unless it is proven or absent. If the watchdog works, it resets this node and
/// this function does not return; after the restart the status shows the watchdog as proven.
async fn prove_watchdog(core: &Client) -> Result<(), ApiError> {
    let WatchdogStatus::Armed { proven: false, timeout_s, .. } = core.status().await?.watchdog else { return Ok(()) };
    core.ask(&Request::ProveWatchdog).await?;
    let proven = async {
        loop {
            if let Ok(mut watch) = core.watch().await {
                while let Ok(status) = watch.next().await {
                    if matches!(status.watchdog, WatchdogStatus::Armed { proven: true, .. }) {
                        return;
                    }
                }
            }
            tokio::time::sleep(SETUP_RECONNECT_DELAY).await;
        }
    };
    // The core waits for four watchdog periods, because some drivers reset after several. Its reply gets 10 s more.
    let deadline = Duration::from_secs(4 * timeout_s + 10);
    tokio::time::timeout(deadline, proven).await.map_err(|_| {
        let sentence = "The watchdog did not reset this node: the pair works, but is not protected until this is proven \
                        (dyad watchdog prove).";
        ApiError::new(ErrorCode::WatchdogFailed, sentence)
    })
}
