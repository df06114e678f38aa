//! The store's thread, which alone uses the pool. It carries out the mirror's commands in the sequence of their arrival.
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes continue meanwhile. A write for which
//! the journal has no room waits for the checkpoint, and all later commands wait behind it.
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

/// Extents moved by one checkpoint job, each at most 64 KiB.
const CHECKPOINT_JOB_EXTENTS: usize = 64;
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
            checkpoint_in_flight: false,
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
    checkpoint_in_flight: bool,
    usage: Arc<Mutex<PoolStatus>>,
    /// The sentence of the error for which the pool closed itself; `None` = it is open, or a disk failed.
    closed_reason: Option<String>,
    usage_shown_at: Instant,
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
                self.checkpoint_in_flight = false;
                if let Err(e) = self.pool.complete_checkpoint_job(done) {
                    tracing::error!(error = %e, "a checkpoint failed");
                }
            }
        }
    }

    /// Carries out the queued commands in their sequence, until one must wait for a checkpoint or a round has
    /// [`MAX_READS_PER_ROUND`] reads.
    fn run_queue(&mut self) {
        self.stalled = false;
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
                    return;
                }
                Err(e) => self.answer(op, Err(e)),
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
        if self.checkpoint_in_flight || self.pool.usable().is_err() {
            return;
        }
        match self.pool.checkpoint_job(CHECKPOINT_JOB_EXTENTS) {
            Ok(Some(job)) => {
                self.checkpoint_in_flight = true;
                let requests = self.requests.clone();
                run_in_background("checkpoint", move || drop(requests.send(StoreRequest::CheckpointDone(job.run()))));
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
mod tests {
    use super::*;
    use dyad_pool::sim::scratch_pool;
    use dyad_pool::{Access, Disk, FileDisk, PoolDisk};
    use dyad_types::{BLOCK, BlockIndex, Epoch, Seq, Stamp, VolumeId};
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);
    const SYNC: StoreOp = StoreOp(0);

    /// A disk whose direct reads take 2 ms each, longer than it takes to queue the next one, and that can be set to refuse
    /// writes.
    struct FaultyDisk {
        file: FileDisk,
        refuses: Arc<AtomicBool>,
    }

    impl Disk for FaultyDisk {
        fn size(&self) -> u64 {
            self.file.size()
        }

        fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            if matches!(access, Access::Direct) {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.file.read_at(access, offset, buffer)
        }

        fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if self.refuses.load(Ordering::Relaxed) {
                return Err(io::Error::other("it refuses"));
            }
            self.file.write_at(access, offset, bytes)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync()
        }
    }

    /// A pool whose volume 1 has one extent outside the journal, so that a read of it is a read of the disk.
    fn pool(dir: &Path, refuses: &Arc<AtomicBool>) -> Pool {
        let disk = || {
            let device = FaultyDisk { file: FileDisk::open(&dir.join("disk")).unwrap(), refuses: refuses.clone() };
            vec![PoolDisk { name: "disk".into(), device: Box::new(device), index: dir.join("index") }]
        };
        drop(FileDisk::create(&dir.join("disk"), 32 << 20).unwrap());
        scratch_pool(disk)
    }

    /// A guest that reads without a pause must not keep another guest from flushing.
    #[test]
    fn a_sync_is_answered_while_reads_keep_coming() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, events) = channel();
        let store = StoreHandle::start(pool(dir.path(), &Arc::default()), Vec::new(), EventSender(sender));
        let read =
            |op| store.run(StoreOp(op), StoreCommand::Read { volume: VolumeId(1), block: BlockIndex(0), count: 1 });
        (1..=64).for_each(read);
        let write = StoreCommand::Write {
            volume: VolumeId(1),
            stamp: Stamp { epoch: Epoch(1), seq: Seq(2) },
            block: BlockIndex(32),
            data: vec![1; 4096].into(),
        };
        store.run(StoreOp(1000), write);
        store.run(SYNC, StoreCommand::Sync);
        // For each answered read another one is sent, so that 64 are always queued.
        let begin = Instant::now();
        for more in 2000.. {
            assert!(begin.elapsed() < TEST_TIMEOUT, "{more} reads were answered and no sync");
            let Ok(Event::Store(done)) = events.recv_timeout(TEST_TIMEOUT) else { panic!("the store answers") };
            assert!(done.result.is_ok(), "{}", done.op);
            if done.op == SYNC {
                return;
            }
            read(more);
        }
    }

    /// No command runs here: the store notices the failure when it appends a record of its own to the journal.
    #[test]
    fn the_usage_names_a_failed_disk_and_asks_for_its_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, _events) = channel();
        let refuses = Arc::default();
        let mut pool = pool(dir.path(), &refuses);
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(0), vec![8; BLOCK].into()).unwrap();
        pool.sync().unwrap();
        refuses.store(true, Ordering::Relaxed);
        let store = StoreHandle::start(pool, vec![("disk".into(), 32 << 20)], EventSender(sender));
        let begin = Instant::now();
        let failed = loop {
            let [disk] = &store.usage().disks[..] else { panic!("one disk") };
            if !disk.healthy {
                break disk.error.clone();
            }
            assert!(begin.elapsed() < TEST_TIMEOUT, "the failure is not noticed");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(failed.as_deref(), Some("The disk disk failed: replace it."));
    }
}
