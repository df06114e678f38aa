//! A model of `dyad-core`'s store thread on one node, around the shipped pool.

use crate::options::PlantedBug;
use crate::partial_faults::SLOW_STEP_PERIOD;
use crate::world::{DaemonJob, World};
use dyad_mirror::{Event, StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::sim::format_options;
use dyad_pool::{CheckpointDone, CheckpointJob, FormatOptions, OpenOptions, Pool, PoolDisk, PoolIdentity};
use dyad_pool::{SyncDone, SyncJob};
use dyad_quorum::{MS, Nanos};
use dyad_replica::{CommandCompletion, execute};
use dyad_types::{ExtentImage, ExtentSet, NodeId, VolumeId};
use std::collections::VecDeque;

/// Microseconds in nanoseconds.
const US: Nanos = 1000;
/// Size of a simulated disk in bytes: small, so that checkpoints are frequent.
pub const DISK_BYTES: u64 = 24 << 20;

/// The store thread: it carries out commands in the order of their arrival, and one sync and one checkpoint step at a
/// time.
pub struct Store {
    pub pool: Pool,
    /// Commands that are not carried out yet.
    queue: VecDeque<(StoreOp, StoreCommand)>,
    /// A [`DaemonJob::StoreWork`] is scheduled.
    work_scheduled: bool,
    /// Commands that the next sync completes.
    waiting_for_sync: Vec<StoreOp>,
    /// Commands that the running sync completes.
    covered_by_sync: Vec<StoreOp>,
    sync: Option<RunningSync>,
    checkpoint: Option<CheckpointJob>,
    /// A checkpoint step is under way.
    checkpoint_runs: bool,
    /// The first command of `queue` waits for a checkpoint.
    stalled: bool,
    /// Number of checkpoint steps that are done.
    steps: u64,
    /// The number of steps at the newest try of a command that waits for a checkpoint.
    tried_at: u64,
    /// The number of steps that the mirror was told, or when the command that waits began to wait.
    told: u64,
}

enum RunningSync {
    /// Its data becomes durable at its end.
    DurableAtEnd(SyncJob),
    /// Its data has become durable at its beginning.
    AlreadyDurable(SyncDone),
}

/// Formats a pool of one disk, with names for the simulator.
pub fn format(disk: PoolDisk, pair: u128, node: NodeId) -> anyhow::Result<()> {
    let identity = PoolIdentity { pool: pair, node, pair_name: "sim".into(), node_name: "sim".into() };
    let options = FormatOptions { disk_ids: vec![u128::from(node.letter())], ..format_options(identity, 1) };
    Ok(Pool::format(vec![disk], &options)?)
}

/// Opens the pool after a start of the daemon.
pub fn open(disk: PoolDisk, pair: u128, node: NodeId) -> anyhow::Result<Store> {
    let (pool, _) = Pool::open(vec![disk], &OpenOptions { expected: (pair, node), durable_index: false })?;
    Ok(Store {
        pool,
        queue: VecDeque::new(),
        work_scheduled: false,
        waiting_for_sync: Vec::new(),
        covered_by_sync: Vec::new(),
        sync: None,
        checkpoint: None,
        checkpoint_runs: false,
        stalled: false,
        steps: 0,
        tried_at: 0,
        told: 0,
    })
}

impl World {
    /// Queues a command of the mirror.
    pub(crate) fn store_command(&mut self, node: usize, op: StoreOp, command: StoreCommand) {
        let Some(core) = &mut self.nodes[node].core else { return };
        core.store.queue.push_back((op, command));
        if !core.store.work_scheduled {
            core.store.work_scheduled = true;
            let delay = self.prng.within(5 * US..80 * US);
            self.schedule_job(node, delay, DaemonJob::StoreWork);
        }
    }

    /// Carries out the oldest command of the node's store.
    pub(crate) fn store_work(&mut self, node: usize) {
        let planted_bug = self.options.planted_bug;
        let affected = self.prng.chance(30);
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        store.work_scheduled = false;
        if store.stalled && store.tried_at == store.steps && store.checkpoint_runs {
            return;
        }
        let Some((op, command)) = store.queue.pop_front() else {
            return self.begin_background_work(node);
        };
        // As the store thread: also steps that let the command through are told.
        let steps = store.steps;
        let progress = store.stalled && std::mem::replace(&mut store.told, steps) < steps;
        if progress && planted_bug != Some(PlantedBug::NoStoreProgress) {
            self.count_event("store progress");
            self.mirror(node, Event::StoreProgress { op, steps });
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        let mut error_text = String::new();
        let outcome = match planted_answer(planted_bug, &command, affected) {
            Some(outcome) => Ok(outcome),
            None => execute(&mut core.store.pool, &command, &mut |error| error_text = error.to_string()),
        };
        let outcome = match outcome {
            Ok(CommandCompletion::Done(StoreOutput::Extent(_)))
                if planted_bug == Some(PlantedBug::SkippedExtent) && is_eighth_extent(&command) =>
            {
                Ok(CommandCompletion::Done(StoreOutput::Extent(ExtentImage::default())))
            }
            other => other,
        };
        if !error_text.is_empty() {
            self.log_line(node, format!("store: {error_text}"));
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        match outcome {
            Ok(CommandCompletion::Done(output)) => self.send_result(node, op, Ok(output)),
            Ok(CommandCompletion::AfterSync) => core.store.waiting_for_sync.push(op),
            Ok(CommandCompletion::AfterCheckpoint) => {
                let store = &mut core.store;
                store.queue.push_front((op, command));
                let steps = store.steps;
                (store.stalled, store.tried_at, store.told) = (true, steps, steps);
                self.count_event("journal full");
                return self.begin_background_work(node);
            }
            Err(error) => self.send_result(node, op, Err(error)),
        }
        if let Some(core) = &mut self.nodes[node].core {
            core.store.stalled = false;
        }
        self.begin_background_work(node);
        let delay = self.prng.within(5 * US..80 * US);
        let Some(core) = &mut self.nodes[node].core else { return };
        if !core.store.queue.is_empty() && !core.store.work_scheduled {
            core.store.work_scheduled = true;
            self.schedule_job(node, delay, DaemonJob::StoreWork);
        }
    }

    fn send_result(&mut self, node: usize, op: StoreOp, result: Result<StoreOutput, StoreError>) {
        let delay = self.prng.within(US..30 * US);
        self.schedule_job(node, delay, DaemonJob::Stored(op, result));
    }

    /// Begins a sync if commands wait for it, and a checkpoint step if the pool has one to do.
    fn begin_background_work(&mut self, node: usize) {
        let at_once = self.prng.chance(500);
        let sync_time = self.prng.within(300 * US..6 * MS);
        let short_time = self.prng.within(100 * US..4 * MS);
        let step_time = if self.has_slow_checkpoints(node) { self.prng.within(SLOW_STEP_PERIOD) } else { short_time };
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        if store.sync.is_none() && !store.waiting_for_sync.is_empty() {
            let covered = std::mem::take(&mut store.waiting_for_sync);
            match store.pool.begin_sync() {
                None => {
                    let result = store.pool.usable().map(|()| StoreOutput::Done).map_err(|_| StoreError::Io);
                    for op in covered {
                        self.send_result(node, op, result.clone());
                    }
                }
                Some(job) => {
                    store.covered_by_sync = covered;
                    // Drawn at random, so that after a power loss during the sync its data may or may not be durable.
                    store.sync = Some(if at_once {
                        RunningSync::AlreadyDurable(job.run())
                    } else {
                        RunningSync::DurableAtEnd(job)
                    });
                    self.schedule_job(node, sync_time, DaemonJob::SyncDone);
                }
            }
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        if !store.checkpoint_runs && store.checkpoint.is_none() {
            match store.pool.checkpoint_job(8) {
                Ok(Some(job)) => {
                    store.checkpoint = Some(job);
                    store.checkpoint_runs = true;
                    self.schedule_job(node, step_time, DaemonJob::CheckpointStepDone);
                    self.count_event("checkpoint steps");
                }
                Ok(None) => {
                    if !store.queue.is_empty() && !store.work_scheduled {
                        store.work_scheduled = true;
                        self.schedule_job(node, short_time, DaemonJob::StoreWork);
                    }
                }
                Err(error) => {
                    let text = format!("checkpoint: {error}");
                    self.report_violation(text);
                }
            }
        }
    }

    /// Completes the running sync and answers its commands.
    pub(crate) fn store_sync_done(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        let done = match store.sync.take() {
            Some(RunningSync::DurableAtEnd(job)) => job.run(),
            Some(RunningSync::AlreadyDurable(done)) => done,
            None => return,
        };
        let result = store.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|_| StoreError::Io);
        for op in std::mem::take(&mut store.covered_by_sync) {
            self.send_result(node, op, result.clone());
        }
        self.begin_background_work(node);
    }

    /// Completes the running checkpoint step.
    pub(crate) fn store_checkpoint_step_done(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let Some(job) = core.store.checkpoint.take() else { return };
        let done: CheckpointDone = job.run();
        core.store.checkpoint_runs = false;
        core.store.steps += 1;
        let stalled = core.store.stalled && !core.store.work_scheduled;
        if let Err(error) = core.store.pool.complete_checkpoint_job(done) {
            self.report_violation(format!("checkpoint: {error}"));
        }
        self.begin_background_work(node);
        let Some(core) = &mut self.nodes[node].core else { return };
        if stalled && !core.store.work_scheduled {
            core.store.work_scheduled = true;
            self.schedule_job(node, 5 * US, DaemonJob::StoreWork);
        }
    }
}

/// The answer that `planted_bug` gives in place of the store; `None` = the store carries the command out. `affected`: a
/// planted bug that affects 3 % of the commands affects this one.
fn planted_answer(
    planted_bug: Option<PlantedBug>,
    command: &StoreCommand,
    affected: bool,
) -> Option<CommandCompletion> {
    let done = Some(CommandCompletion::Done(StoreOutput::Done));
    match (planted_bug?, command) {
        (PlantedBug::SkippedSync, StoreCommand::Sync) => done,
        (PlantedBug::NoUnconfirmed, StoreCommand::ListUnconfirmed { .. }) => {
            Some(CommandCompletion::Done(StoreOutput::Unconfirmed(ExtentSet::new())))
        }
        (PlantedBug::UnmirroredWrite, StoreCommand::Write { volume, .. }) if *volume != VolumeId(0) && affected => done,
        _ => None,
    }
}

/// Whether the command reads an extent that [`PlantedBug::SkippedExtent`] skips.
fn is_eighth_extent(command: &StoreCommand) -> bool {
    matches!(command, StoreCommand::ReadExtent { volume, extent } if *volume != VolumeId(0) && extent.0 % 8 == 3)
}
