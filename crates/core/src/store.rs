//! The store's thread, which alone uses the pool. It carries out the mirror's commands in the sequence of their arrival.
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes continue meanwhile. A write for which
//! the journal has no room waits for the checkpoint, and all later commands wait behind it. It is tried again after each
//! step of the checkpoint, and the mirror is told of each step that the disks have completed meanwhile.
//!
//! **Invariants.** A `Sync` or `MarkDirty` is answered only after a sync that began after all earlier commands were carried out.
//! The end of a sync or of a checkpoint job is handled after at most [`MAX_READS_PER_ROUND`] further reads.

use crate::event::{Event, EventSender, StoreDone};
use dyad_control::{PoolDiskStatus, PoolStatus};
use dyad_mirror::{StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::{CheckpointDone, Pool, SyncDone};
use dyad_replica::{CommandCompletion, execute};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Largest number of extents moved by one checkpoint job, each at most 64 KiB.
const CHECKPOINT_JOB_EXTENTS: usize = 64;
/// The time that a checkpoint job should take at most. A command that waits for room is tried again after each job, and
/// progress is told only then: the time must be far below the mirror's T_io of 3 s. A slow disk gets smaller jobs, of which
/// one extent is the smallest: at most 16 reads and 8 writes.
const CHECKPOINT_JOB_PERIOD: Duration = Duration::from_millis(250);
/// Most reads of one round. Each blocks this thread until the disk answers, and the end of a sync or of a checkpoint job is
/// noticed only between two rounds.
const MAX_READS_PER_ROUND: usize = 16;
/// Interval at which the usage shown in the status is renewed.
const USAGE_INTERVAL: Duration = Duration::from_millis(500);

enum StoreRequest {
    Run(StoreOp, StoreCommand),
    /// The thread of a sync has ended.
    SyncDone(SyncDone),
    /// The thread of a checkpoint job has ended.
    CheckpointDone(CheckpointDone),
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
            pool,
            disks,
            event_sender,
            requests: requests.clone(),
            queue: VecDeque::new(),
            stalled: false,
            awaiting_sync: Vec::new(),
            syncing: Vec::new(),
            sync_in_flight: false,
            checkpoint: Checkpointing::default(),
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
    pool: Pool,
    disks: Vec<(String, u64)>,
    event_sender: EventSender,
    requests: Sender<StoreRequest>,
    /// Commands not begun yet.
    queue: VecDeque<(StoreOp, StoreCommand)>,
    /// The first command of `queue` waits for a checkpoint.
    stalled: bool,
    /// Commands that are answered after the next sync.
    awaiting_sync: Vec<StoreOp>,
    /// Commands that are answered after the sync that runs.
    syncing: Vec<StoreOp>,
    sync_in_flight: bool,
    checkpoint: Checkpointing,
    usage: Arc<Mutex<PoolStatus>>,
    /// The sentence of the error for which the pool closed itself; `None` = it is open, or a disk failed.
    closed_reason: Option<String>,
    usage_shown_at: Instant,
}

/// The checkpoint jobs of this run of the thread.
struct Checkpointing {
    /// The time at which the job that runs began; `None` if none runs.
    job_began: Option<Instant>,
    /// Number of extents that the next job moves.
    extents: usize,
    /// Number of jobs that were completed.
    steps: u64,
    /// The commands that wait for a checkpoint are to be tried again.
    may_have_room: bool,
    /// `steps` of the newest report of progress, or when the command that waits began to wait.
    told: u64,
}

impl Default for Checkpointing {
    fn default() -> Self {
        // A slow disk takes about a second for as many random reads and writes.
        Self { job_began: None, extents: 8, steps: 0, may_have_room: false, told: 0 }
    }
}

/// The number of extents of the next checkpoint job after one of `extents` that took this long.
fn next_job_extents(extents: usize, took: Duration) -> usize {
    if took > CHECKPOINT_JOB_PERIOD {
        let fitting = extents as u128 * CHECKPOINT_JOB_PERIOD.as_micros() / took.as_micros();
        return (fitting as usize).max(1);
    }
    if took < CHECKPOINT_JOB_PERIOD / 4 { (extents * 2).min(CHECKPOINT_JOB_EXTENTS) } else { extents }
}

impl Store {
    fn run(mut self, requests: &Receiver<StoreRequest>) {
        loop {
            let timeout = if self.has_runnable_command() { Duration::ZERO } else { USAGE_INTERVAL };
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

    /// Whether a command is queued and need not wait for a checkpoint.
    fn has_runnable_command(&self) -> bool {
        !self.queue.is_empty() && !self.stalled
    }

    fn receive(&mut self, request: StoreRequest) {
        match request {
            StoreRequest::Run(op, command) => self.queue.push_back((op, command)),
            StoreRequest::SyncDone(done) => {
                self.sync_in_flight = false;
                let result = self.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|e| {
                    log_error(&e);
                    StoreError::Io
                });
                for op in std::mem::take(&mut self.syncing) {
                    self.answer(op, result.clone());
                }
            }
            StoreRequest::CheckpointDone(done) => {
                if let Some(began) = self.checkpoint.job_began.take() {
                    self.checkpoint.extents = next_job_extents(self.checkpoint.extents, began.elapsed());
                }
                self.checkpoint.may_have_room = true;
                match self.pool.complete_checkpoint_job(done) {
                    Ok(_) => self.checkpoint.steps += 1,
                    Err(e) => tracing::error!(error = %e, "a checkpoint failed"),
                }
            }
        }
    }

    /// Carries out the queued commands in their sequence, until one must wait for a checkpoint or a round has
    /// [`MAX_READS_PER_ROUND`] reads.
    ///
    /// A command that waits is tried again only when a step of the checkpoint has ended: each try may append records of a
    /// command that takes several, and so use up the room that is left. After the failure of a disk each try is an answer.
    fn run_queue(&mut self) {
        if self.stalled && !self.checkpoint.may_have_room && self.pool.usable().is_ok() {
            return;
        }
        if let Some((op, _)) = self.queue.front().filter(|_| self.stalled) {
            self.tell_progress(*op);
        }
        (self.stalled, self.checkpoint.may_have_room) = (false, false);
        let mut reads = 0;
        while let Some((op, command)) = self.queue.pop_front() {
            if matches!(command, StoreCommand::Read { .. } | StoreCommand::ReadExtent { .. }) {
                if reads == MAX_READS_PER_ROUND {
                    self.queue.push_front((op, command));
                    return;
                }
                reads += 1;
                // Commands that wait for a sync must not wait for this read first.
                self.begin_sync();
            }
            match execute(&mut self.pool, &command, &mut log_error) {
                Ok(CommandCompletion::Done(output)) => self.answer(op, Ok(output)),
                Ok(CommandCompletion::AfterSync) => self.awaiting_sync.push(op),
                Ok(CommandCompletion::AfterCheckpoint) => {
                    self.queue.push_front((op, command));
                    self.stalled = true;
                    self.checkpoint.told = self.checkpoint.steps;
                    return;
                }
                Err(e) => self.answer(op, Err(e)),
            }
            // The sooner a checkpoint begins, the more room is left for the writes during it.
            if self.pool.wants_checkpoint() {
                self.begin_checkpoint_job();
            }
        }
    }

    fn answer(&self, op: StoreOp, result: Result<StoreOutput, StoreError>) {
        self.event_sender.send(Event::Store(StoreDone { op, result }));
    }

    fn begin_sync(&mut self) {
        if self.sync_in_flight || self.awaiting_sync.is_empty() {
            return;
        }
        let covered = std::mem::take(&mut self.awaiting_sync);
        match self.pool.begin_sync() {
            // All writes are durable already.
            None => {
                let result = self.pool.usable().map(|()| StoreOutput::Done).map_err(|_| StoreError::Io);
                covered.into_iter().for_each(|op| self.answer(op, result.clone()));
            }
            Some(job) => {
                self.syncing = covered;
                self.sync_in_flight = true;
                let requests = self.requests.clone();
                run_in_background("sync", move || drop(requests.send(StoreRequest::SyncDone(job.run()))));
            }
        }
    }

    fn begin_checkpoint_job(&mut self) {
        if self.checkpoint.job_began.is_some() || self.pool.usable().is_err() {
            return;
        }
        match self.pool.checkpoint_job(self.checkpoint.extents) {
            Ok(Some(job)) => {
                self.checkpoint.job_began = Some(Instant::now());
                let requests = self.requests.clone();
                run_in_background("checkpoint", move || drop(requests.send(StoreRequest::CheckpointDone(job.run()))));
            }
            // No step will end, so a command that waits is tried again without one.
            Ok(None) => self.checkpoint.may_have_room = true,
            Err(e) => {
                tracing::error!(error = %e, "a checkpoint cannot go on");
                // For a failed disk `usage_of` has a sentence.
                if !matches!(e, dyad_pool::StoreError::Failed { .. }) {
                    self.closed_reason = Some(dyad_provision::refusal::sentence(&e.to_string()));
                }
            }
        }
    }

    /// Tells the mirror that the disks have completed steps of the checkpoint for which this command has waited. The command
    /// is about to be tried again. The mirror must learn of steps that let it through as well: what the peer asks next may
    /// wait for the next step.
    fn tell_progress(&mut self, op: StoreOp) {
        let steps = self.checkpoint.steps;
        if std::mem::replace(&mut self.checkpoint.told, steps) < steps {
            self.event_sender.send(Event::StoreProgress { op, steps });
        }
    }

    fn show(&mut self) {
        if self.usage_shown_at.elapsed() >= USAGE_INTERVAL {
            self.usage_shown_at = Instant::now();
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) =
                usage_of(&self.pool, &self.disks, self.closed_reason.as_deref());
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
