//! Carries out a [`Plan`]: a list of named steps whose progress everybody can see.

use std::{sync::Arc, time::Duration};

use dyad_api::{ApiError, ErrorCode, StepState, StepView, TaskView};
use dyad_control::{Client, CreatePair, Enrol, Join, Phase, RefusalCode, Request, WatchdogStatus};
use dyad_wizard::{Plan, WitnessPlan};

use crate::{network::Network, password};

/// How long the core may take to open its pool after formatting.
const POOL_OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long to wait before a core that was lost is watched again.
const CORE_RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// One setup, ready to run.
pub(crate) struct Run {
    plan: Plan,
    network: Arc<dyn Network>,
}

/// What a running setup tells.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// This step runs now; those before it are done.
    Step(usize),
    /// All steps are done.
    Done,
    /// The running step failed.
    Failed(ApiError),
}

#[derive(Clone, Copy)]
enum Step {
    Network,
    CreatePair,
    /// One step, as the witness is enrolled before a disk is touched: a wrong code changes nothing.
    EnrolAndCreatePair,
    Join,
    Open,
    Watchdog,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Step::Network => "set up the network",
            Step::CreatePair => "format the disks and begin the pair",
            Step::EnrolAndCreatePair => "enrol at the witness, format the disks and begin the pair",
            Step::Join => "prove the pairing code, format the disks and join",
            Step::Open => "open the pool",
            Step::Watchdog => "prove the watchdog, for which this node restarts once",
        }
    }
}

impl Progress {
    /// Puts the progress into the view of the task.
    pub(crate) fn show(&self, task: &mut TaskView) {
        let running = task.steps.iter().position(|s| s.state == StepState::Running);
        match self {
            Progress::Step(at) => {
                for (i, step) in task.steps.iter_mut().enumerate() {
                    if i < *at {
                        step.state = StepState::Done;
                    } else if i == *at {
                        step.state = StepState::Running;
                    }
                }
            }
            Progress::Done => {
                task.finished = true;
                task.steps.iter_mut().for_each(|step| step.state = StepState::Done);
            }
            Progress::Failed(error) => {
                task.finished = true;
                task.error = Some(error.clone());
                if let Some(at) = running {
                    task.steps[at].state = StepState::Failed;
                }
            }
        }
    }
}

impl Run {
    pub(crate) fn new(plan: Plan, network: Arc<dyn Network>) -> Self {
        Run { plan, network }
    }

    fn steps(&self) -> Vec<Step> {
        let (network, middle) = match &self.plan {
            Plan::First { network, witness: Some(_), .. } => (network, Step::EnrolAndCreatePair),
            Plan::First { network, .. } => (network, Step::CreatePair),
            Plan::Join { network, .. } => (network, Step::Join),
        };
        let mut steps = vec![middle, Step::Open, Step::Watchdog];
        if network.is_some() {
            steps.insert(0, Step::Network);
        }
        steps
    }

    /// The ports of the peer link; empty = the core takes what it was started with.
    fn links(&self) -> Vec<String> {
        let (Plan::First { network, .. } | Plan::Join { network, .. }) = &self.plan;
        network.as_ref().map(|network| network.peer_links.clone()).unwrap_or_default()
    }

    /// The task as it looks before it runs.
    pub(crate) fn task(&self) -> TaskView {
        let step = |step: Step| StepView { text: step.text().into(), state: StepState::Waiting };
        TaskView { finished: false, error: None, steps: self.steps().into_iter().map(step).collect() }
    }

    /// Runs all steps; stops at the first that fails.
    pub(crate) async fn carry_out(self, core: &Client, tell: impl Fn(Progress)) {
        for (i, step) in self.steps().into_iter().enumerate() {
            tell(Progress::Step(i));
            if let Err(error) = self.step(step, core).await {
                tracing::warn!("setup failed, {}: {error}", step.text());
                self.undo(core).await;
                return tell(Progress::Failed(error));
            }
        }
        tell(Progress::Done);
    }

    /// Takes the network back if the node belongs to no pair: people reach it where they began, with other answers.
    async fn undo(&self, core: &Client) {
        let (Plan::First { network, .. } | Plan::Join { network, .. }) = &self.plan;
        let blank = core.status().await.is_ok_and(|status| status.phase == Phase::Blank);
        if network.is_some()
            && blank
            && let Err(sentence) = self.network.undo().await
        {
            tracing::error!("the network was not taken back: {sentence}");
        }
    }

    async fn step(&self, step: Step, core: &Client) -> Result<(), ApiError> {
        match (step, &self.plan) {
            (Step::Network, Plan::First { network, .. } | Plan::Join { network, .. }) => match network {
                Some(wanted) => {
                    let failed = |sentence| ApiError::new(ErrorCode::Network, sentence);
                    self.network.apply(wanted.clone()).await.map_err(failed)
                }
                None => Ok(()),
            },
            (Step::CreatePair | Step::EnrolAndCreatePair, Plan::First { pair, node, disks, password, witness, .. }) => {
                let enrol = |at: &WitnessPlan| Enrol { address: at.address.clone(), code: at.code.clone() };
                let found = CreatePair {
                    pair: pair.clone(),
                    node: node.clone(),
                    disks: disks.clone(),
                    links: self.links(),
                    admin_password_hash: password::hash(password).await?,
                    witness: witness.as_ref().map(enrol),
                };
                core.ask(&Request::CreatePair(found)).await?;
                Ok(())
            }
            (Step::Join, Plan::Join { node, disks, code, offer, .. }) => {
                let join = Join {
                    node: node.clone(),
                    disks: disks.clone(),
                    links: self.links(),
                    code: code.clone(),
                    offer: offer.clone(),
                };
                core.ask(&Request::Join(join)).await?;
                Ok(())
            }
            (Step::Open, _) => opened(core).await,
            (Step::Watchdog, _) => prove_watchdog(core).await,
            // `steps` names only steps of this plan.
            (Step::CreatePair | Step::EnrolAndCreatePair | Step::Join, _) => Ok(()),
        }
    }
}

/// Waits until the core works. It may restart itself in between.
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

/// Lets the watchdog reset this node, unless it has done so before or there is none. When it works, nobody is left to
/// see the end of this step: the node starts anew.
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
    // Drivers may take several periods; the core gives up after four.
    let deadline = Duration::from_secs(4 * timeout_s + 10);
    tokio::time::timeout(deadline, proven).await.map_err(|_| {
        let sentence = "The watchdog did not reset this node: the pair works, but is not protected until this is proven \
                        (dyad watchdog prove).";
        ApiError::new(ErrorCode::WatchdogFailed, sentence)
    })
}
