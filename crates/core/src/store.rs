//! The store's thread: the one owner of the pool. It carries out the mirror's commands in order.
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes go on meanwhile. A write for which
//! the journal has no room waits for the checkpoint, and with it everything behind it: order is a promise.
//!
//! **Invariant.** A `Sync` or `MarkDirty` is answered only after a sync that began after everything before it.

use crate::event::{Event, Inbox};
use dyad_control::{PoolDiskStatus, PoolStatus};
use dyad_mirror::{
    self as mirror, ExtentImage, ExtentSet, Inventory, Run, Stamp, StoreCommand, StoreError, StoreOp, StoreOutput,
    VolumeChange, VolumeInfo,
};
use dyad_pool::{self as pool, CheckpointDone, Pool, ReadError, SyncDone};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Extents moved by one checkpoint job, each at most 64 KiB.
const JOB_EXTENTS: usize = 64;
/// How often the usage shown in the status is renewed.
const USAGE_EVERY: Duration = Duration::from_millis(500);

/// A finished command.
pub struct StoreDone {
    /// Which.
    pub op: StoreOp,
    /// How.
    pub result: Result<StoreOutput, StoreError>,
}

enum Order {
    Run(StoreOp, StoreCommand),
    Synced(SyncDone),
    Moved(CheckpointDone),
    Stop(Sender<()>),
}

/// The way to the store's thread.
pub struct StoreHandle {
    orders: Sender<Order>,
    usage: Arc<Mutex<PoolStatus>>,
}

impl StoreHandle {
    /// Starts the thread. `disks` names the disks for the status.
    pub fn start(pool: Pool, disks: Vec<(String, u64)>, owner: Inbox) -> Self {
        let (orders, receiver) = channel();
        let usage = Arc::new(Mutex::new(usage_of(&pool, &disks)));
        let store = Store {
            pool,
            disks,
            owner,
            orders: orders.clone(),
            queue: VecDeque::new(),
            waiting: Vec::new(),
            syncing: Vec::new(),
            sync_out: false,
            job_out: false,
            usage: usage.clone(),
            shown: Instant::now(),
            space_wanted: false,
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || store.run(&receiver))
            .expect("the system can start a thread at start-up");
        Self { orders, usage }
    }

    /// Runs a command after all earlier ones.
    pub fn run(&self, op: StoreOp, command: StoreCommand) {
        let _ = self.orders.send(Order::Run(op, command));
    }

    /// The pool's fill and health, at most half a second old.
    pub fn usage(&self) -> PoolStatus {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the thread after a last sync.
    pub fn stop(&self) {
        let (done, wait) = channel();
        if self.orders.send(Order::Stop(done)).is_ok() {
            // A thread that has failed cannot answer; then there is nothing to wait for.
            let _ = wait.recv();
        }
    }
}

/// What the mirror must know of the pool at start.
pub fn inventory(pool: &Pool) -> Inventory {
    let volumes = pool.volumes();
    let dirty = volumes.iter().filter_map(|v| Some((v.id, extents(pool.dirty(v.id)?)))).collect();
    let volumes = volumes.iter().map(|v| VolumeInfo {
        id: v.id,
        size: v.blocks * pool::BLOCK as u64,
        last: Stamp { epoch: v.last.0, seq: v.last.1 },
    });
    Inventory { volumes: volumes.collect(), dirty }
}

fn extents(set: &pool::ExtentSet) -> ExtentSet {
    let mut all = ExtentSet::new();
    set.iter().for_each(|extent| all.insert(extent..extent + 1));
    all
}

struct Store {
    pool: Pool,
    disks: Vec<(String, u64)>,
    owner: Inbox,
    orders: Sender<Order>,
    /// Commands not begun yet: the first one waits for a checkpoint.
    queue: VecDeque<(StoreOp, StoreCommand)>,
    /// Answered after the next sync.
    waiting: Vec<StoreOp>,
    /// Answered after the sync that is out.
    syncing: Vec<StoreOp>,
    sync_out: bool,
    job_out: bool,
    usage: Arc<Mutex<PoolStatus>>,
    shown: Instant,
    space_wanted: bool,
}

/// What became of one command.
enum Outcome {
    Done(StoreOutput),
    AfterSync,
    AfterCheckpoint,
}

impl Store {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(USAGE_EVERY) {
                Ok(order) => {
                    if self.take(order) {
                        return;
                    }
                    // All that is queued goes into one group before the next sync begins.
                    while let Ok(order) = orders.try_recv() {
                        if self.take(order) {
                            return;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.work();
            self.begin_sync();
            self.begin_job();
            self.show();
        }
    }

    /// Returns true when it was told to stop.
    fn take(&mut self, order: Order) -> bool {
        match order {
            Order::Run(op, command) => {
                self.queue.push_back((op, command));
                if self.queue.len() == 1 {
                    self.work();
                }
            }
            Order::Synced(done) => {
                self.sync_out = false;
                let result = self.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|e| refused(&e));
                for op in std::mem::take(&mut self.syncing) {
                    self.answer(op, result.clone());
                }
            }
            Order::Moved(done) => {
                self.job_out = false;
                if let Err(e) = self.pool.complete_checkpoint_job(done) {
                    tracing::error!(error = %e, "a checkpoint failed");
                }
            }
            Order::Stop(done) => {
                if !self.sync_out
                    && let Err(e) = self.pool.sync()
                {
                    tracing::error!(error = %e, "the last sync failed");
                }
                let _ = done.send(());
                return true;
            }
        }
        false
    }

    /// Runs what is queued until something must wait for a checkpoint.
    fn work(&mut self) {
        while let Some((op, command)) = self.queue.pop_front() {
            match self.execute(&command) {
                Ok(Outcome::Done(output)) => self.answer(op, Ok(output)),
                Ok(Outcome::AfterSync) => self.waiting.push(op),
                Ok(Outcome::AfterCheckpoint) => {
                    self.queue.push_front((op, command));
                    return;
                }
                Err(e) => self.answer(op, Err(e)),
            }
        }
    }

    fn answer(&self, op: StoreOp, result: Result<StoreOutput, StoreError>) {
        self.owner.send(Event::Store(StoreDone { op, result }));
    }

    fn begin_sync(&mut self) {
        if self.sync_out || self.waiting.is_empty() {
            return;
        }
        let covered = std::mem::take(&mut self.waiting);
        match self.pool.begin_sync() {
            // Everything is durable already.
            None => {
                let result = self.pool.usable().map(|()| StoreOutput::Done).map_err(|_| StoreError::Io);
                covered.into_iter().for_each(|op| self.answer(op, result.clone()));
            }
            Some(job) => {
                self.syncing = covered;
                self.sync_out = true;
                let orders = self.orders.clone();
                background("sync", move || drop(orders.send(Order::Synced(job.run()))));
            }
        }
    }

    fn begin_job(&mut self) {
        if self.job_out {
            return;
        }
        match self.pool.checkpoint_job(JOB_EXTENTS) {
            Ok(Some(job)) => {
                self.job_out = true;
                let orders = self.orders.clone();
                background("checkpoint", move || drop(orders.send(Order::Moved(job.run()))));
            }
            Ok(None) => {
                // Nothing is left to move, so whatever waits for room waits in vain: let the caller know.
                if self.queue.front().is_some() && !self.pool.wants_checkpoint() {
                    self.space_wanted = true;
                }
            }
            Err(e) => tracing::error!(error = %e, "a checkpoint cannot go on"),
        }
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= USAGE_EVERY {
            self.shown = Instant::now();
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage_of(&self.pool, &self.disks);
        }
    }

    fn execute(&mut self, command: &StoreCommand) -> Result<Outcome, StoreError> {
        let pool = &mut self.pool;
        let done = |result: Result<pool::Position, pool::StoreError>| match result {
            Ok(_) => Ok(Outcome::Done(StoreOutput::Done)),
            Err(pool::StoreError::JournalFull) => Ok(Outcome::AfterCheckpoint),
            Err(e) => Err(refused(&e)),
        };
        let durable = |result: Result<pool::Position, pool::StoreError>| match result {
            Ok(_) => Ok(Outcome::AfterSync),
            Err(pool::StoreError::JournalFull) => Ok(Outcome::AfterCheckpoint),
            Err(e) => Err(refused(&e)),
        };
        match command {
            StoreCommand::Write { volume, stamp, block, data } => {
                done(pool.write(*volume, stamp.epoch, stamp.seq, *block, data.clone()))
            }
            StoreCommand::Discard { volume, stamp, block, count } => {
                let (mut at, end) = (*block, block + count);
                while at < end {
                    let n = (end - at).min(pool::MAX_DISCARD_BLOCKS);
                    match done(pool.discard(*volume, stamp.epoch, stamp.seq, at, n))? {
                        Outcome::Done(_) => at += n,
                        wait => return Ok(wait),
                    }
                }
                Ok(Outcome::Done(StoreOutput::Done))
            }
            StoreCommand::WriteExtent { volume, stamp, extent, image, wanted } => {
                let blocks = pool.volume(*volume).ok_or(StoreError::NoVolume)?.blocks;
                for run in image.runs(*extent, *wanted, blocks) {
                    let result = match run {
                        Run::Data(block, data) => pool.write(*volume, stamp.epoch, stamp.seq, block, data),
                        Run::Absent(block, count) => pool.discard(*volume, stamp.epoch, stamp.seq, block, count),
                    };
                    match done(result)? {
                        Outcome::Done(_) => {}
                        wait => return Ok(wait),
                    }
                }
                Ok(Outcome::Done(StoreOutput::Done))
            }
            StoreCommand::Read { volume, block, count } => {
                pool.read(*volume, *block, *count).map(|data| Outcome::Done(StoreOutput::Data(data))).map_err(unread)
            }
            StoreCommand::ReadExtent { volume, extent } => {
                read_extent(pool, *volume, *extent).map(|image| Outcome::Done(StoreOutput::Extent(image)))
            }
            StoreCommand::Sync => Ok(Outcome::AfterSync),
            StoreCommand::MarkDirty { marks } => {
                for (volume, ranges) in marks {
                    for range in ranges {
                        match durable(pool.mark_dirty(*volume, range.clone()))? {
                            Outcome::AfterSync => {}
                            wait => return Ok(wait),
                        }
                    }
                }
                Ok(Outcome::AfterSync)
            }
            StoreCommand::ClearDirty => {
                for volume in pool.volumes() {
                    let set = pool.dirty(volume.id).map(extents).unwrap_or_default();
                    for range in set.ranges() {
                        match done(pool.clear_dirty(volume.id, range))? {
                            Outcome::Done(_) => {}
                            wait => return Ok(wait),
                        }
                    }
                }
                Ok(Outcome::Done(StoreOutput::Done))
            }
            StoreCommand::Confirm { volume, seq } => match pool.confirm(*volume, *seq) {
                Ok(()) | Err(pool::StoreError::NoVolume { .. }) => Ok(Outcome::Done(StoreOutput::Done)),
                Err(e) => Err(refused(&e)),
            },
            StoreCommand::Tail { volume } => {
                let tail = pool.tail(*volume).as_ref().map(extents).unwrap_or_default();
                Ok(Outcome::Done(StoreOutput::Tail(tail)))
            }
            StoreCommand::Volume(change) => match change_volume(pool, change) {
                // The id is still being freed: a checkpoint finishes that.
                Err(pool::StoreError::Exists { .. }) => Ok(Outcome::AfterCheckpoint),
                result => durable(result),
            },
        }
    }
}

/// Each change is idempotent, as the mirror expects.
fn change_volume(pool: &mut Pool, change: &VolumeChange) -> Result<pool::Position, pool::StoreError> {
    let blocks = |size: u64| size / pool::BLOCK as u64;
    let existing = pool.volume(change.id()).map(|volume| volume.blocks);
    match (*change, existing) {
        (VolumeChange::Create { id, size }, None) => pool.create_volume(id, blocks(size)),
        (VolumeChange::Delete { id }, Some(_)) => pool.delete_volume(id),
        (VolumeChange::Resize { id, size }, Some(now)) if blocks(size) > now => pool.resize_volume(id, blocks(size)),
        (VolumeChange::Resize { id, .. }, None) => Err(pool::StoreError::NoVolume { volume: id }),
        _ => Ok(pool.last_position()),
    }
}

/// An extent with its damaged blocks named instead of an error.
fn read_extent(pool: &Pool, volume: u64, extent: u64) -> Result<ExtentImage, StoreError> {
    match pool.read_extent(volume, extent) {
        Ok(image) => Ok(pack(image.present, 0, &image.data)),
        Err(ReadError::Corrupt { .. } | ReadError::Io { .. }) => {
            let blocks = pool.volume(volume).ok_or(StoreError::NoVolume)?.blocks;
            let first = extent * pool::EXTENT_BLOCKS;
            let mut data = vec![0; pool::EXTENT];
            let (mut present, mut bad) = (0u16, 0u16);
            for bit in 0..pool::EXTENT_BLOCKS.min(blocks.saturating_sub(first)) {
                let place = bit as usize * pool::BLOCK;
                match pool.read(volume, first + bit, 1) {
                    // A block of zeros may as well be absent: it reads the same.
                    Ok(block) if block.iter().all(|b| *b == 0) => {}
                    Ok(block) => {
                        present |= 1 << bit;
                        data[place..place + pool::BLOCK].copy_from_slice(&block);
                    }
                    Err(_) => bad |= 1 << bit,
                }
            }
            Ok(pack(present, bad, &data))
        }
        Err(e) => Err(unread(e)),
    }
}

fn pack(present: u16, bad: u16, data: &[u8]) -> ExtentImage {
    let blocks = data.chunks_exact(mirror::BLOCK).enumerate().filter(|(i, _)| present & 1 << i != 0);
    let data: Vec<u8> = blocks.flat_map(|(_, block)| block.iter().copied()).collect();
    ExtentImage { present, bad, data: data.into() }
}

fn refused(error: &pool::StoreError) -> StoreError {
    match error {
        pool::StoreError::NoSpace => StoreError::NoSpace,
        pool::StoreError::NoVolume { .. } => StoreError::NoVolume,
        other => {
            tracing::error!(error = %other, "the pool refused a command");
            StoreError::Io
        }
    }
}

fn unread(error: ReadError) -> StoreError {
    match error {
        ReadError::Corrupt { blocks, volume } => {
            tracing::error!(volume, ?blocks, "blocks do not match their checksums");
            StoreError::Corrupt { blocks }
        }
        ReadError::NoVolume { .. } => StoreError::NoVolume,
        other => {
            tracing::error!(error = %other, "the pool could not be read");
            StoreError::Io
        }
    }
}

fn usage_of(pool: &Pool, disks: &[(String, u64)]) -> PoolStatus {
    let usage = pool.usage();
    let failed = pool.usable().err();
    let disk = |(path, bytes): &(String, u64)| PoolDiskStatus {
        path: path.clone(),
        bytes: *bytes,
        well: failed.as_ref() != Some(path),
        trouble: (failed.as_ref() == Some(path)).then(|| format!("The disk {path} failed: replace it.")),
    };
    PoolStatus { total_bytes: usage.total, used_bytes: usage.used, disks: disks.iter().map(disk).collect() }
}

/// Runs one job on a thread of its own. At most one sync and one checkpoint job are out at a time.
fn background(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(job).expect("the system can start a thread");
}
