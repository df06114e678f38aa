//! The store's thread of one node, in virtual time, over the pool that ships.

use crate::options::PlantedBug;
use crate::world::{Job, World};
use dyad_mirror::{StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::sim::format_options;
use dyad_pool::{CheckpointDone, CheckpointJob, FormatOptions, OpenOptions, Pool, PoolDisk, PoolIdentity};
use dyad_pool::{SyncDone, SyncJob};
use dyad_quorum::{MS, Nanos};
use dyad_replica::{CommandCompletion, execute};
use dyad_types::{ExtentImage, ExtentSet, NodeId, VolumeId};
use std::collections::VecDeque;

/// Microseconds in nanoseconds.
const US: Nanos = 1000;
/// Bytes of a simulated disk: small, so that a checkpoint is never far.
pub const DISK: u64 = 24 << 20;

/// The store thread: commands in order, one sync and one checkpoint step at a time.
pub struct Store {
    pub pool: Pool,
    queue: VecDeque<(StoreOp, StoreCommand)>,
    working: bool,
    waiting: Vec<StoreOp>,
    syncing: Vec<StoreOp>,
    sync: Option<Syncing>,
    checkpoint: Option<CheckpointJob>,
    job_out: bool,
}

enum Syncing {
    Begun(SyncJob),
    Made(SyncDone),
}

/// Writes an empty store of one disk, with names for the simulator.
pub fn format(disk: PoolDisk, pair: u128, node: NodeId) -> anyhow::Result<()> {
    let identity = PoolIdentity { pool: pair, node, pair_name: "sim".into(), node_name: "sim".into() };
    let options = FormatOptions { disk_ids: vec![u128::from(node.letter())], ..format_options(identity, 1) };
    Ok(Pool::format(vec![disk], &options)?)
}

/// Opens it again, after whatever happened.
pub fn open(disk: PoolDisk, pair: u128, node: NodeId) -> anyhow::Result<Store> {
    let (pool, _) = Pool::open(vec![disk], &OpenOptions { expected: (pair, node), durable_index: false })?;
    Ok(Store {
        pool,
        queue: VecDeque::new(),
        working: false,
        waiting: Vec::new(),
        syncing: Vec::new(),
        sync: None,
        checkpoint: None,
        job_out: false,
    })
}

impl World {
    pub(crate) fn store_command(&mut self, node: usize, op: StoreOp, command: StoreCommand) {
        let Some(core) = &mut self.nodes[node].core else { return };
        core.store.queue.push_back((op, command));
        if !core.store.working {
            core.store.working = true;
            let delay = self.prng.within(5 * US..80 * US);
            self.job(node, delay, Job::StoreWork);
        }
    }

    /// Carries out the oldest command of the node's store.
    pub(crate) fn store_work(&mut self, node: usize) {
        let planted_bug = self.options.planted_bug;
        let hit = self.prng.chance(30);
        let Some(core) = &mut self.nodes[node].core else { return };
        core.store.working = false;
        let Some((op, command)) = core.store.queue.pop_front() else {
            return self.store_background(node);
        };
        let mut words = String::new();
        let outcome = match planted(planted_bug, &command, hit) {
            Some(outcome) => Ok(outcome),
            None => execute(&mut core.store.pool, &command, &mut |error| words = error.to_string()),
        };
        let outcome = match outcome {
            Ok(CommandCompletion::Done(StoreOutput::Extent(_)))
                if planted_bug == Some(PlantedBug::SkippedExtent) && is_eighth_extent(&command) =>
            {
                Ok(CommandCompletion::Done(StoreOutput::Extent(ExtentImage::default())))
            }
            other => other,
        };
        if !words.is_empty() {
            self.note(node, format!("store: {words}"));
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        match outcome {
            Ok(CommandCompletion::Done(output)) => self.stored(node, op, Ok(output)),
            Ok(CommandCompletion::AfterSync) => core.store.waiting.push(op),
            Ok(CommandCompletion::AfterCheckpoint) => {
                core.store.queue.push_front((op, command));
                self.count("journal full");
                self.store_background(node);
                return;
            }
            Err(error) => self.stored(node, op, Err(error)),
        }
        self.store_background(node);
        let delay = self.prng.within(5 * US..80 * US);
        let Some(core) = &mut self.nodes[node].core else { return };
        if !core.store.queue.is_empty() && !core.store.working {
            core.store.working = true;
            self.job(node, delay, Job::StoreWork);
        }
    }

    fn stored(&mut self, node: usize, op: StoreOp, result: Result<StoreOutput, StoreError>) {
        let delay = self.prng.within(US..30 * US);
        self.job(node, delay, Job::Stored(op, result));
    }

    /// Begins a sync if commands wait for one, and a checkpoint step if one is due.
    fn store_background(&mut self, node: usize) {
        let at_once = self.prng.chance(500);
        let sync_time = self.prng.within(300 * US..6 * MS);
        let step_time = self.prng.within(100 * US..4 * MS);
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        if store.sync.is_none() && !store.waiting.is_empty() {
            let covered = std::mem::take(&mut store.waiting);
            match store.pool.begin_sync() {
                None => {
                    let result = store.pool.usable().map(|()| StoreOutput::Done).map_err(|_| StoreError::Io);
                    for op in covered {
                        self.stored(node, op, result.clone());
                    }
                }
                Some(job) => {
                    store.syncing = covered;
                    // Durable at its beginning or at its end, drawn at random: a power cut in between may find either.
                    store.sync = Some(if at_once { Syncing::Made(job.run()) } else { Syncing::Begun(job) });
                    self.job(node, sync_time, Job::Synced);
                }
            }
        }
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        if !store.job_out && store.checkpoint.is_none() {
            match store.pool.checkpoint_job(8) {
                Ok(Some(job)) => {
                    store.checkpoint = Some(job);
                    store.job_out = true;
                    self.job(node, step_time, Job::Moved);
                    self.count("checkpoint steps");
                }
                Ok(None) => {
                    if !store.queue.is_empty() && !store.working {
                        store.working = true;
                        self.job(node, step_time, Job::StoreWork);
                    }
                }
                Err(error) => {
                    let text = format!("checkpoint: {error}");
                    self.violate(text);
                }
            }
        }
    }

    pub(crate) fn store_synced(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let store = &mut core.store;
        let done = match store.sync.take() {
            Some(Syncing::Begun(job)) => job.run(),
            Some(Syncing::Made(done)) => done,
            None => return,
        };
        let result = store.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|_| StoreError::Io);
        for op in std::mem::take(&mut store.syncing) {
            self.stored(node, op, result.clone());
        }
        self.store_background(node);
    }

    pub(crate) fn store_moved(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let Some(job) = core.store.checkpoint.take() else { return };
        let done: CheckpointDone = job.run();
        core.store.job_out = false;
        if let Err(error) = core.store.pool.complete_checkpoint_job(done) {
            self.violate(format!("checkpoint: {error}"));
        }
        self.store_background(node);
    }
}

/// The answer that `planted_bug` gives instead of the store; `None`: the store carries the command out. `hit` is the random
/// draw with which an unmirrored write happens.
fn planted(planted_bug: Option<PlantedBug>, command: &StoreCommand, hit: bool) -> Option<CommandCompletion> {
    let done = Some(CommandCompletion::Done(StoreOutput::Done));
    match (planted_bug?, command) {
        (PlantedBug::SkippedSync, StoreCommand::Sync) => done,
        (PlantedBug::NoUnconfirmed, StoreCommand::ListUnconfirmed { .. }) => {
            Some(CommandCompletion::Done(StoreOutput::Unconfirmed(ExtentSet::new())))
        }
        (PlantedBug::UnmirroredWrite, StoreCommand::Write { volume, .. }) if *volume != VolumeId(0) && hit => done,
        _ => None,
    }
}

fn is_eighth_extent(command: &StoreCommand) -> bool {
    matches!(command, StoreCommand::ReadExtent { volume, extent } if *volume != VolumeId(0) && extent.0 % 8 == 3)
}
