//! The store's thread: the one owner of the pool. It carries out the mirror's commands in order.
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes go on meanwhile. A write for which
//! the journal has no room waits for the checkpoint, and with it everything behind it: order is a promise.
//!
//! **Invariant.** A `Sync` or `MarkDirty` is answered only after a sync that began after everything before it.

use crate::event::{Event, Inbox};
use dyad_control::{PoolDiskStatus, PoolStatus};
use dyad_mirror::{StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::{CheckpointDone, Pool, SyncDone};
use dyad_replica::{Outcome, execute};
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
                let result = self.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|e| {
                    report(&e);
                    StoreError::Io
                });
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
            match execute(&mut self.pool, &command, &mut report) {
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
            Ok(None) => {}
            Err(e) => tracing::error!(error = %e, "a checkpoint cannot go on"),
        }
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= USAGE_EVERY {
            self.shown = Instant::now();
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage_of(&self.pool, &self.disks);
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

/// The pool's own words go to the log; the mirror gets its own kind of error.
fn report(error: &dyn std::error::Error) {
    tracing::error!(%error, "the pool refused a command");
}

/// Runs one job on a thread of its own. At most one sync and one checkpoint job are out at a time.
fn background(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(job).expect("the system can start a thread");
}
