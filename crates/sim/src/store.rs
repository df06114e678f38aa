//! The store thread of `dyad-core` on one node: the shipped queue and the shipped pool, with the times that the disk and the
//! messages between threads take.

use crate::options::PlantedBug;
use crate::partial_faults::SLOW_STEP_PERIOD;
use crate::world::{DaemonJob, World};
use dyad_mirror::{Event, StoreCommand, StoreOp, StoreOutput};
use dyad_pool::sim::format_options;
use dyad_pool::{CheckpointJob, FormatOptions, OpenOptions, Pool, PoolDisk, PoolIdentity};
use dyad_pool::{SyncDone, SyncJob};
use dyad_quorum::{MS, Nanos};
use dyad_replica::{CommandCompletion, CommandQueue, StoreReport, execute};
use dyad_types::{ExtentImage, ExtentSet, NodeId, VolumeId};
use std::time::Duration;

/// Microseconds in nanoseconds.
const US: Nanos = 1000;
/// Size of a simulated disk in bytes: small, so that checkpoints are frequent.
pub const DISK_BYTES: u64 = 24 << 20;

/// The store thread, which carries out one command at a time.
pub struct Store {
    pub queue: CommandQueue,
    /// A [`DaemonJob::StoreWork`] is scheduled.
    work_scheduled: bool,
    sync: Option<RunningSync>,
    /// The checkpoint job that runs, and the time that it takes.
    checkpoint: Option<(CheckpointJob, Nanos)>,
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
pub fn open(disk: PoolDisk, pair: u128, node: NodeId) -> Result<Store, dyad_pool::OpenError> {
    let (pool, _) = Pool::open(vec![disk], &OpenOptions { expected: (pair, node), durable_index: false })?;
    Ok(Store { queue: CommandQueue::new(pool), work_scheduled: false, sync: None, checkpoint: None })
}

impl World {
    /// Queues a command of the mirror.
    pub(crate) fn store_command(&mut self, node: usize, op: StoreOp, command: StoreCommand) {
        let Some(core) = &mut self.nodes[node].core else { return };
        core.store.queue.push(op, command);
        self.schedule_store_work(node);
    }

    /// Schedules the work on the next command, if there is one.
    fn schedule_store_work(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        if store.queue.next_command().is_none() || std::mem::replace(&mut store.work_scheduled, true) {
            return;
        }
        let stalled = store.queue.is_stalled();
        let delay = if stalled { self.prng.within(100 * US..4 * MS) } else { self.prng.within(5 * US..80 * US) };
        self.schedule_job(node, delay, DaemonJob::StoreWork);
    }

    /// Carries out the next command of the node's store.
    pub(crate) fn store_work(&mut self, node: usize) {
        let planted_bug = self.options.planted_bug;
        let affected = self.prng.chance(30);
        let Some(core) = &mut self.nodes[node].core else { return };
        core.store.work_scheduled = false;
        let mut error_text = String::new();
        let mut reports = Vec::new();
        let execute = |pool: &mut Pool, command: &StoreCommand| {
            if let Some(answer) = planted_answer(planted_bug, command, affected) {
                return Ok(answer);
            }
            let completion = execute(pool, command, &mut |error| error_text = error.to_string())?;
            let skipped = planted_bug == Some(PlantedBug::SkippedExtent) && is_eighth_extent(command);
            Ok(match completion {
                CommandCompletion::Done(StoreOutput::Extent(_)) if skipped => {
                    CommandCompletion::Done(StoreOutput::Extent(ExtentImage::default()))
                }
                completion => completion,
            })
        };
        core.store.queue.run_next(execute, &mut reports);
        let stalled = core.store.queue.is_stalled();
        if !error_text.is_empty() {
            self.log_line(node, format!("store: {error_text}"));
        }
        if stalled {
            self.count_event("journal full");
        }
        self.tell_mirror(node, reports);
        self.begin_background_work(node);
    }

    fn tell_mirror(&mut self, node: usize, reports: Vec<StoreReport>) {
        for report in reports {
            match report {
                StoreReport::Answer { op, result } => {
                    let delay = self.prng.within(US..30 * US);
                    self.schedule_job(node, delay, DaemonJob::Stored(op, result));
                }
                StoreReport::Progress { .. } if self.options.planted_bug == Some(PlantedBug::NoStoreProgress) => {}
                StoreReport::Progress { op, steps } => {
                    self.count_event("store progress");
                    self.mirror(node, Event::StoreProgress { op, steps });
                }
                StoreReport::Damaged { volume, extent } => {
                    self.count_event("damage found by checkpoints");
                    if self.options.planted_bug != Some(PlantedBug::NoDamageReport) {
                        self.mirror(node, Event::Damaged { volume, extent });
                    }
                }
            }
        }
    }

    /// Begins a sync if commands wait for it, and a checkpoint job if the pool has one to do; then goes on with the commands.
    fn begin_background_work(&mut self, node: usize) {
        self.begin_store_sync(node);
        self.begin_checkpoint_job(node);
        self.schedule_store_work(node);
    }

    fn begin_store_sync(&mut self, node: usize) {
        let at_once = self.prng.chance(500);
        let sync_time = self.prng.within(300 * US..6 * MS);
        let Some(core) = &mut self.nodes[node].core else { return };
        let mut reports = Vec::new();
        if let Some(job) = core.store.queue.begin_sync(&mut reports) {
            // Drawn at random, so that after a power loss during the sync its data may or may not be durable.
            core.store.sync =
                Some(if at_once { RunningSync::AlreadyDurable(job.run()) } else { RunningSync::DurableAtEnd(job) });
            self.schedule_job(node, sync_time, DaemonJob::SyncDone);
        }
        self.tell_mirror(node, reports);
    }

    fn begin_checkpoint_job(&mut self, node: usize) {
        let slow = self.has_slow_checkpoints(node);
        let took = self.prng.within(if slow { SLOW_STEP_PERIOD } else { 100 * US..4 * MS });
        let Some(core) = &mut self.nodes[node].core else { return };
        match core.store.queue.begin_checkpoint_job() {
            Ok(Some(job)) => {
                core.store.checkpoint = Some((job, took));
                self.schedule_job(node, took, DaemonJob::CheckpointStepDone);
                self.count_event("checkpoint steps");
            }
            Ok(None) => {}
            Err(error) => self.checkpoint_failed(node, &error),
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
        let mut reports = Vec::new();
        if let Err(error) = store.queue.sync_done(done, &mut reports) {
            self.log_line(node, format!("sync: {error}"));
        }
        self.tell_mirror(node, reports);
        self.begin_background_work(node);
    }

    /// Completes the running checkpoint job.
    pub(crate) fn store_checkpoint_step_done(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let Some((job, took)) = core.store.checkpoint.take() else { return };
        let mut reports = Vec::new();
        if let Err(error) = core.store.queue.checkpoint_job_done(job.run(), Duration::from_nanos(took), &mut reports) {
            self.checkpoint_failed(node, &error);
        }
        self.tell_mirror(node, reports);
        self.begin_background_work(node);
    }

    /// Whether the node's daemon runs and no disk of its pool has failed.
    pub(crate) fn pool_works(&self, node: usize) -> bool {
        self.nodes[node].core.as_ref().is_some_and(|core| core.store.queue.pool().usable().is_ok())
    }

    /// A checkpoint goes on unless a disk has failed.
    fn checkpoint_failed(&mut self, node: usize, error: &dyad_pool::StoreError) {
        if self.pool_works(node) {
            self.report_violation(format!("checkpoint: {error}"));
        } else {
            self.log_line(node, format!("checkpoint: {error}"));
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
