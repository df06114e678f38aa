//! The store's thread, which alone uses the pool. It carries out the mirror's commands in order.
//!
//! Syncs and checkpoint jobs run on threads of their own, so that reads and writes go on meanwhile. A write for which
//! the journal has no room waits for the checkpoint, and with it every later command: none overtakes another.
//!
//! **Invariants.** A `Sync` or `MarkDirty` is answered only after a sync that began after everything before it. What waits for
//! a sync or a checkpoint never waits for more than [`READS`] reads, however many are asked for.

use crate::event::{Event, Inbox, StoreDone};
use dyad_control::{PoolDiskStatus, PoolStatus};
use dyad_mirror::{StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::{CheckpointDone, Pool, SyncDone};
use dyad_replica::{CommandCompletion, execute};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Extents moved by one checkpoint job, each at most 64 KiB.
const JOB_EXTENTS: usize = 64;
/// Reads of one round at most. Each may take as long as the disk does, and the end of a sync or of a checkpoint's job is
/// noticed only between two rounds.
const READS: usize = 16;
/// How often the usage shown in the status is renewed.
const USAGE_INTERVAL: Duration = Duration::from_millis(500);

enum StoreRequest {
    Run(StoreOp, StoreCommand),
    Synced(SyncDone),
    Moved(CheckpointDone),
}

/// Sends commands to the store's thread.
pub struct StoreHandle {
    requests: Sender<StoreRequest>,
    usage: Arc<Mutex<PoolStatus>>,
}

impl StoreHandle {
    /// Starts the thread. `disks` names the disks for the status.
    pub fn start(pool: Pool, disks: Vec<(String, u64)>, inbox: Inbox) -> Self {
        let (requests, receiver) = channel();
        let usage = Arc::new(Mutex::new(usage_of(&pool, &disks, None)));
        let store = Store {
            pool,
            disks,
            inbox,
            requests: requests.clone(),
            queue: VecDeque::new(),
            stalled: false,
            waiting: Vec::new(),
            syncing: Vec::new(),
            sync_out: false,
            job_out: false,
            usage: usage.clone(),
            broken: None,
            shown: Instant::now(),
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || store.run(&receiver))
            .expect("the system can start a thread at start-up");
        Self { requests, usage }
    }

    /// A test has the place of the thread.
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

    /// The pool's fill and health, at most half a second old.
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
    inbox: Inbox,
    requests: Sender<StoreRequest>,
    /// Commands not begun yet.
    queue: VecDeque<(StoreOp, StoreCommand)>,
    /// The first of them waits for a checkpoint.
    stalled: bool,
    /// Answered after the next sync.
    waiting: Vec<StoreOp>,
    /// Answered after the sync that is out.
    syncing: Vec<StoreOp>,
    sync_out: bool,
    job_out: bool,
    usage: Arc<Mutex<PoolStatus>>,
    /// Why the pool closed itself, if it did.
    broken: Option<String>,
    shown: Instant,
}

impl Store {
    fn run(mut self, requests: &Receiver<StoreRequest>) {
        loop {
            let timeout = if self.at_hand() { Duration::ZERO } else { USAGE_INTERVAL };
            match requests.recv_timeout(timeout) {
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // All that is queued goes into one group before the next sync begins.
            while let Ok(request) = requests.try_recv() {
                self.take(request);
            }
            self.work();
            self.begin_sync();
            self.begin_job();
            self.show();
        }
    }

    /// Whether there is a command that need not wait for a checkpoint.
    fn at_hand(&self) -> bool {
        !self.queue.is_empty() && !self.stalled
    }

    fn take(&mut self, request: StoreRequest) {
        match request {
            StoreRequest::Run(op, command) => self.queue.push_back((op, command)),
            StoreRequest::Synced(done) => {
                self.sync_out = false;
                let result = self.pool.complete_sync(done).map(|_| StoreOutput::Done).map_err(|e| {
                    report(&e);
                    StoreError::Io
                });
                for op in std::mem::take(&mut self.syncing) {
                    self.answer(op, result.clone());
                }
            }
            StoreRequest::Moved(done) => {
                self.job_out = false;
                if let Err(e) = self.pool.complete_checkpoint_job(done) {
                    tracing::error!(error = %e, "a checkpoint failed");
                }
            }
        }
    }

    /// Runs what is queued, in order, until something must wait for a checkpoint or enough was read for one round.
    fn work(&mut self) {
        self.stalled = false;
        let mut reads = 0;
        while let Some((op, command)) = self.queue.pop_front() {
            if matches!(command, StoreCommand::Read { .. } | StoreCommand::ReadExtent { .. }) {
                if reads == READS {
                    self.queue.push_front((op, command));
                    return;
                }
                reads += 1;
                // Commands that wait for a sync do not wait for this read as well.
                self.begin_sync();
            }
            match execute(&mut self.pool, &command, &mut report) {
                Ok(CommandCompletion::Done(output)) => self.answer(op, Ok(output)),
                Ok(CommandCompletion::AfterSync) => self.waiting.push(op),
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
        self.inbox.send(Event::Store(StoreDone { op, result }));
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
                let requests = self.requests.clone();
                background("sync", move || drop(requests.send(StoreRequest::Synced(job.run()))));
            }
        }
    }

    fn begin_job(&mut self) {
        if self.job_out || self.pool.usable().is_err() {
            return;
        }
        match self.pool.checkpoint_job(JOB_EXTENTS) {
            Ok(Some(job)) => {
                self.job_out = true;
                let requests = self.requests.clone();
                background("checkpoint", move || drop(requests.send(StoreRequest::Moved(job.run()))));
            }
            Ok(None) => {}
            Err(e) => {
                tracing::error!(error = %e, "a checkpoint cannot go on");
                // A disk that failed says enough itself.
                if !matches!(e, dyad_pool::StoreError::Failed { .. }) {
                    self.broken = Some(dyad_provision::refusal::sentence(&e.to_string()));
                }
            }
        }
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= USAGE_INTERVAL {
            self.shown = Instant::now();
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) =
                usage_of(&self.pool, &self.disks, self.broken.as_deref());
        }
    }
}

fn usage_of(pool: &Pool, disks: &[(String, u64)], broken: Option<&str>) -> PoolStatus {
    let usage = pool.usage();
    let failed = pool.usable().err().map(|failed| failed.disk);
    let disk = |(path, bytes): &(String, u64)| PoolDiskStatus {
        path: path.clone(),
        bytes: *bytes,
        healthy: failed.as_ref() != Some(path),
        error: (failed.as_ref() == Some(path))
            .then(|| broken.map_or_else(|| format!("The disk {path} failed: replace it."), str::to_owned)),
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

    /// A disk on which every read takes longer than the core state takes to ask for the next one, and that may refuse writes.
    struct SickDisk {
        file: FileDisk,
        refuses: Arc<AtomicBool>,
    }

    impl Disk for SickDisk {
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

    /// A pool whose volume 1 has one extent on the disk itself and not only in the journal.
    fn pool(dir: &Path, refuses: &Arc<AtomicBool>) -> Pool {
        let disk = || {
            let device = SickDisk { file: FileDisk::open(&dir.join("disk")).unwrap(), refuses: refuses.clone() };
            vec![PoolDisk { name: "disk".into(), device: Box::new(device), index: dir.join("index") }]
        };
        drop(FileDisk::create(&dir.join("disk"), 32 << 20).unwrap());
        scratch_pool(disk)
    }

    /// A guest that never stops reading does not keep another one from flushing.
    #[test]
    fn a_sync_does_not_wait_for_the_end_of_all_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, events) = channel();
        let store = StoreHandle::start(pool(dir.path(), &Arc::default()), Vec::new(), Inbox(sender));
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
        // As many again are asked for as are answered, so that there is always one more.
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

    /// The failure is noticed by the store itself here: it appends a note to the journal when no command is under way.
    #[test]
    fn a_disk_that_fails_is_named_and_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, _events) = channel();
        let refuses = Arc::default();
        let mut pool = pool(dir.path(), &refuses);
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(0), vec![8; BLOCK].into()).unwrap();
        pool.sync().unwrap();
        refuses.store(true, Ordering::Relaxed);
        let store = StoreHandle::start(pool, vec![("disk".into(), 32 << 20)], Inbox(sender));
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
