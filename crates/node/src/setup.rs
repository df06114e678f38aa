//! Carries out a [`SetupPlan`] as a list of named steps; the snapshot shows their progress.

use std::{sync::Arc, time::Duration};

use dyad_api::{ApiError, ErrorCode, StepState, StepView, TaskView};
use dyad_control::{Client, CreatePair, Enrol, Join, Phase, RefusalCode, Request, WatchdogStatus};
use dyad_wizard::{SetupPlan, WitnessPlan};

use crate::{
    network::{NetworkSetup, NetworkSetupError},
    password,
};

/// Limit for the core to open its pool after formatting. It takes seconds; a disk that does not answer takes up to a minute.
const POOL_OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// Wait before a core that ended the connection is watched again. It restarts itself once during setup.
const CORE_RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// One setup, ready to run.
pub(crate) struct SetupRun {
    plan: SetupPlan,
    network: Arc<dyn NetworkSetup>,
}

/// Progress of a running setup.
#[derive(Debug, Clone)]
pub(crate) enum SetupProgress {
    /// The step with this index runs; the steps before it are done.
    StepBegun(usize),
    /// All steps are done.
    Done,
    /// The running step failed.
    Failed(ApiError),
}

#[derive(Clone, Copy)]
enum SetupStep {
    Network,
    CreatePair,
    /// One step, because the witness is enrolled before a disk is written: a wrong code changes nothing.
    EnrolAndCreatePair,
    Join,
    Open,
    Watchdog,
}

impl SetupStep {
    fn text(self) -> &'static str {
        match self {
            SetupStep::Network => "set up the network",
            SetupStep::CreatePair => "format the disks and begin the pair",
            SetupStep::EnrolAndCreatePair => "enrol at the witness, format the disks and begin the pair",
            SetupStep::Join => "prove the pairing code, format the disks and join",
            SetupStep::Open => "open the pool",
            SetupStep::Watchdog => "prove the watchdog, for which this node restarts once",
        }
    }
}

impl SetupProgress {
    /// Updates the view of the task.
    pub(crate) fn show(&self, task: &mut TaskView) {
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
        let (network, middle) = match &self.plan {
            SetupPlan::First { network, witness: Some(_), .. } => (network, SetupStep::EnrolAndCreatePair),
            SetupPlan::First { network, .. } => (network, SetupStep::CreatePair),
            SetupPlan::Join { network, .. } => (network, SetupStep::Join),
        };
        let mut steps = vec![middle, SetupStep::Open, SetupStep::Watchdog];
        if network.is_some() {
            steps.insert(0, SetupStep::Network);
        }
        steps
    }

    /// The ports of the peer link; empty = the core uses the ports given on its command line.
    fn links(&self) -> Vec<String> {
        let (SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) = &self.plan;
        network.as_ref().map(|network| network.peer_links.clone()).unwrap_or_default()
    }

    /// The view of the task before its first step.
    pub(crate) fn task(&self) -> TaskView {
        let step = |step: SetupStep| StepView { text: step.text().into(), state: StepState::Waiting };
        TaskView { finished: false, error: None, steps: self.steps().into_iter().map(step).collect() }
    }

    /// Runs all steps; stops at the first failed one.
    pub(crate) async fn carry_out(self, core: &Client, tell: impl Fn(SetupProgress)) {
        for (i, step) in self.steps().into_iter().enumerate() {
            tell(SetupProgress::StepBegun(i));
            if let Err(error) = self.step(step, core).await {
                tracing::warn!("setup failed, {}: {error}", step.text());
                self.undo(core).await;
                return tell(SetupProgress::Failed(error));
            }
        }
        tell(SetupProgress::Done);
    }

    /// Undoes the network settings if the node is still blank, so that its wizard is reached at the same address as before.
    async fn undo(&self, core: &Client) {
        let (SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) = &self.plan;
        let blank = core.status().await.is_ok_and(|status| status.phase == Phase::Blank);
        if network.is_some()
            && blank
            && let Err(error) = self.network.undo().await
        {
            tracing::error!("the network settings were not undone: {error}");
        }
    }

    async fn step(&self, step: SetupStep, core: &Client) -> Result<(), ApiError> {
        match (step, &self.plan) {
            (SetupStep::Network, SetupPlan::First { network, .. } | SetupPlan::Join { network, .. }) => match network {
                Some(wanted) => {
                    let failed = |error: NetworkSetupError| ApiError::new(ErrorCode::Network, error.to_string());
                    self.network.apply(wanted.clone()).await.map_err(failed)
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
                    links: self.links(),
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
                    links: self.links(),
                    code: code.clone(),
                    pair_id: pair_id.clone(),
                };
                core.ask(&Request::Join(join)).await?;
                Ok(())
            }
            (SetupStep::Open, _) => opened(core).await,
            (SetupStep::Watchdog, _) => prove_watchdog(core).await,
            // `steps` names only steps of this plan.
            (SetupStep::CreatePair | SetupStep::EnrolAndCreatePair | SetupStep::Join, _) => Ok(()),
        }
    }
}

/// Waits until the core runs with its pool open. The core restarts itself once in between.
async fn opened(core: &Client) -> Result<(), ApiError> {
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
            tokio::time::sleep(CORE_RECONNECT_DELAY).await;
        }
    };
    let late = || {
        ApiError::new(ErrorCode::PoolLate, "The pool did not open within two minutes: look at the log of this node.")
    };
    tokio::time::timeout(POOL_OPEN_TIMEOUT, waiting).await.map_err(|_| late())?
}

/// Lets the watchdog reset this node, unless it is proven or absent. If the reset works this function does not return: the node
/// restarts, and the status then shows the watchdog as proven.
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
            tokio::time::sleep(CORE_RECONNECT_DELAY).await;
        }
    };
    // The core gives up after four watchdog periods, because some drivers need several; 10 s more for its answer.
    let deadline = Duration::from_secs(4 * timeout_s + 10);
    tokio::time::timeout(deadline, proven).await.map_err(|_| {
        let sentence = "The watchdog did not reset this node: the pair works, but is not protected until this is proven \
                        (dyad watchdog prove).";
        ApiError::new(ErrorCode::WatchdogFailed, sentence)
    })
}
