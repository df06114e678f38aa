//! The store's thread, which alone uses the pool. It carries out the mirror's commands ([`CommandQueue`]).
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes continue meanwhile.
//!
//! **Invariant.** The end of a sync or of a checkpoint job is handled after at most [`MAX_READS_PER_ROUND`] further reads.

use crate::event::{Event, EventSender, StoreDone};
use dyad_control::{PoolDiskStatus, PoolStatus};
use dyad_mirror::{StoreCommand, StoreOp};
use dyad_pool::{CheckpointDone, Pool, SyncDone};
use dyad_replica::{CommandQueue, StoreReport, execute};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most reads of one round. Each blocks this thread until the disk answers, and the end of a sync or of a checkpoint job is
/// noticed only between two rounds.
const MAX_READS_PER_ROUND: usize = 16;
/// Interval at which the usage shown in the status is renewed.
const USAGE_INTERVAL: Duration = Duration::from_millis(500);

enum StoreRequest {
    Run(StoreOp, StoreCommand),
    /// The thread of a sync has ended.
    SyncDone(SyncDone),
    /// The thread of a checkpoint job, which took this long, has ended.
    CheckpointDone(CheckpointDone, Duration),
}

/// Sends commands to the store's thread.
pub struct StoreHandle {
    requests: Sender<StoreRequest>,
    usage: Arc<Mutex<PoolStatus>>,
}

impl StoreHandle {
    /// Starts the thread. `disks` are path and size in bytes of each disk, for the status.
    pub fn start(pool: Pool, disks: Vec<(String, u64)>, event_sender: EventSender) -> Self {
        let (requests, receiver) = channel();
        let usage = Arc::new(Mutex::new(usage_of(&pool, &disks, None)));
        let store = Store {
            queue: CommandQueue::new(pool),
            disks,
            event_sender,
            requests: requests.clone(),
            usage: usage.clone(),
            closed_reason: None,
            usage_shown_at: Instant::now(),
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || store.run(&receiver))
            .expect("the system can start a thread at start-up");
        Self { requests, usage }
    }

    /// A handle without a thread: a test takes the commands from the [`FakeStore`].
    #[cfg(test)]
    pub fn fake() -> (Self, FakeStore) {
        let usage = PoolStatus { total_bytes: 0, used_bytes: 0, disks: Vec::new() };
        let (requests, receiver) = channel();
        (Self { requests, usage: Arc::new(Mutex::new(usage)) }, FakeStore(receiver))
    }

    /// Runs a command after all earlier ones.
    pub fn run(&self, op: StoreOp, command: StoreCommand) {
        let _ = self.requests.send(StoreRequest::Run(op, command));
    }

    /// The pool's fill and health as of the last renewal: every 500 ms, later if a disk blocks the store's thread.
    pub fn usage(&self) -> PoolStatus {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes the commands in place of the store's thread, in tests.
#[cfg(test)]
pub struct FakeStore(Receiver<StoreRequest>);

#[cfg(test)]
impl FakeStore {
    /// The next command, if one waits.
    pub fn next(&self) -> Option<(StoreOp, StoreCommand)> {
        match self.0.try_recv() {
            Ok(StoreRequest::Run(op, command)) => Some((op, command)),
            _ => None,
        }
    }
}

struct Store {
    queue: CommandQueue,
    disks: Vec<(String, u64)>,
    event_sender: EventSender,
    requests: Sender<StoreRequest>,
    usage: Arc<Mutex<PoolStatus>>,
    /// The sentence of the error for which the pool closed itself; `None` = it is open, or a disk failed.
    closed_reason: Option<String>,
    usage_shown_at: Instant,
}

impl Store {
    fn run(mut self, requests: &Receiver<StoreRequest>) {
        loop {
            let timeout = if self.queue.is_runnable() { Duration::ZERO } else { USAGE_INTERVAL };
            match requests.recv_timeout(timeout) {
                Ok(request) => self.receive(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // All requests that have arrived are queued before the next sync begins, so that it serves as many as possible.
            while let Ok(request) = requests.try_recv() {
                self.receive(request);
            }
            self.run_queue();
            self.begin_sync();
            self.begin_checkpoint_job();
            self.show();
        }
    }

    fn receive(&mut self, request: StoreRequest) {
        match request {
            StoreRequest::Run(op, command) => self.queue.push(op, command),
            StoreRequest::SyncDone(done) => {
                let mut reports = Vec::new();
                if let Err(error) = self.queue.sync_done(done, &mut reports) {
                    log_error(&error);
                }
                self.tell(reports);
            }
            StoreRequest::CheckpointDone(done, took) => {
                let mut reports = Vec::new();
                if let Err(error) = self.queue.checkpoint_job_done(done, took, &mut reports) {
                    tracing::error!(%error, "a checkpoint failed");
                }
                self.tell(reports);
            }
        }
    }

    /// Carries out the queued commands, until one must wait for a checkpoint or a round has [`MAX_READS_PER_ROUND`] reads.
    fn run_queue(&mut self) {
        let mut reads = 0;
        while let Some(command) = self.queue.next_command() {
            if matches!(command, StoreCommand::Read { .. } | StoreCommand::ReadExtent { .. }) {
                if reads == MAX_READS_PER_ROUND {
                    return;
                }
                reads += 1;
                // Commands that wait for a sync must not wait for this read first.
                self.begin_sync();
            }
            let mut reports = Vec::new();
            self.queue.run_next(|pool, command| execute(pool, command, &mut log_error), &mut reports);
            self.tell(reports);
            if self.queue.is_stalled() {
                return;
            }
            // The sooner a checkpoint begins, the more room is left for the writes during it.
            if self.queue.pool().wants_checkpoint() {
                self.begin_checkpoint_job();
            }
        }
    }

    fn tell(&self, reports: Vec<StoreReport>) {
        for report in reports {
            self.event_sender.send(match report {
                StoreReport::Answer { op, result } => Event::Store(StoreDone { op, result }),
                StoreReport::Progress { op, steps } => Event::StoreProgress { op, steps },
                StoreReport::Damaged { volume, extent } => Event::StoreDamaged { volume, extent },
            });
        }
    }

    fn begin_sync(&mut self) {
        let mut reports = Vec::new();
        if let Some(job) = self.queue.begin_sync(&mut reports) {
            let requests = self.requests.clone();
            run_in_background("sync", move || drop(requests.send(StoreRequest::SyncDone(job.run()))));
        }
        self.tell(reports);
    }

    fn begin_checkpoint_job(&mut self) {
        match self.queue.begin_checkpoint_job() {
            Ok(Some(job)) => {
                let requests = self.requests.clone();
                run_in_background("checkpoint", move || {
                    let began = Instant::now();
                    let done = job.run();
                    drop(requests.send(StoreRequest::CheckpointDone(done, began.elapsed())));
                });
            }
            Ok(None) => {}
            Err(e) => {
                tracing::error!(error = %e, "a checkpoint cannot go on");
                // For a failed disk `usage_of` has a sentence.
                if !matches!(e, dyad_pool::StoreError::Failed { .. }) {
                    self.closed_reason = Some(dyad_provision::refusal::sentence(&e.to_string()));
                }
            }
        }
    }

    fn show(&mut self) {
        if self.usage_shown_at.elapsed() >= USAGE_INTERVAL {
            self.usage_shown_at = Instant::now();
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) =
                usage_of(self.queue.pool(), &self.disks, self.closed_reason.as_deref());
        }
    }
}

fn usage_of(pool: &Pool, disks: &[(String, u64)], closed_reason: Option<&str>) -> PoolStatus {
    let usage = pool.usage();
    let failed = pool.usable().err().map(|failed| failed.disk);
    let disk = |(path, bytes): &(String, u64)| PoolDiskStatus {
        path: path.clone(),
        bytes: *bytes,
        healthy: failed.as_ref() != Some(path),
        error: (failed.as_ref() == Some(path))
            .then(|| closed_reason.map_or_else(|| format!("The disk {path} failed: replace it."), str::to_owned)),
    };
    PoolStatus { total_bytes: usage.total, used_bytes: usage.used, disks: disks.iter().map(disk).collect() }
}

/// Logs the pool's error, with its details; the mirror gets only a [`StoreError`].
fn log_error(error: &dyn std::error::Error) {
    tracing::error!(%error, "the pool refused a command");
}

/// Runs one job on a thread of its own. At most one sync and one checkpoint job run at a time.
fn run_in_background(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(job).expect("the system can start a thread");
}

#[cfg(test)]
mod tests;
