//! The commands of a mirror that its store has not answered, and what each of them waits for.
//!
//! The queue carries out one command at a time, in the sequence of their arrival. It has no thread and no clock: its caller runs
//! the sync and the checkpoint job that the queue hands out, at most one of each at a time, while further commands are carried
//! out. A write for which the journal has no room waits for a checkpoint, and all later commands wait behind it. It is tried
//! again after each job of the checkpoint, and the mirror is told how many jobs the disks have completed meanwhile.
//!
//! **Invariants.** A `Sync` or `MarkDirty` is answered only after a sync that began after all earlier commands were carried out. Each
//! command is answered once.

use crate::execute::CommandCompletion;
use dyad_mirror::{StoreCommand, StoreError, StoreOp, StoreOutput};
use dyad_pool::{self as pool, CheckpointDone, CheckpointJob, Pool, SyncDone, SyncJob};
use dyad_types::{ExtentIndex, VolumeId};
use std::collections::VecDeque;
use std::time::Duration;

/// Largest number of extents moved by one checkpoint job, each at most 64 KiB.
const MAX_JOB_EXTENTS: usize = 64;
/// Number of extents that the first checkpoint job moves: a slow disk takes about a second for as many random reads and writes.
const FIRST_JOB_EXTENTS: usize = 8;
/// The time that a checkpoint job should take at most. A command that waits for room is tried again after each job, and
/// progress is told only then: the time must be far below the mirror's T_io of 3 s. A slow disk gets smaller jobs, of which
/// one extent is the smallest: at most 16 reads and 8 writes.
const JOB_PERIOD: Duration = Duration::from_millis(250);

/// What the mirror is told.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreReport {
    /// The result of a command.
    Answer { op: StoreOp, result: Result<StoreOutput, StoreError> },
    /// This command waits for a checkpoint, of whose jobs the disks have completed further ones. The command is tried again
    /// right after this report.
    Progress {
        op: StoreOp,
        /// Number of checkpoint jobs that were completed since the pool was opened.
        steps: u64,
    },
    /// A finished checkpoint has found damage in this extent.
    Damaged { volume: VolumeId, extent: ExtentIndex },
}

/// A pool and the commands that it has not answered.
pub struct CommandQueue {
    pool: Pool,
    /// Commands that are not carried out yet.
    waiting: VecDeque<(StoreOp, StoreCommand)>,
    /// The first command of `waiting` waits for a checkpoint.
    stalled: bool,
    /// The command that waits for a checkpoint is to be tried again.
    may_have_room: bool,
    /// Commands that are answered after the next sync.
    awaiting_sync: Vec<StoreOp>,
    /// Commands that are answered after the sync that runs; `None` = none runs.
    syncing: Option<Vec<StoreOp>>,
    /// A checkpoint job runs.
    job_runs: bool,
    /// Number of extents that the next checkpoint job moves.
    job_extents: usize,
    /// Number of checkpoint jobs that were completed.
    steps: u64,
    /// `steps` of the newest report of progress, or when the command that waits began to wait.
    told: u64,
}

impl CommandQueue {
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            waiting: VecDeque::new(),
            stalled: false,
            may_have_room: false,
            awaiting_sync: Vec::new(),
            syncing: None,
            job_runs: false,
            job_extents: FIRST_JOB_EXTENTS,
            steps: 0,
            told: 0,
        }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The pool, for changes beside the queue: tests and the simulator fill its journal with them.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Puts a command behind all that wait.
    pub fn push(&mut self, op: StoreOp, command: StoreCommand) {
        self.waiting.push_back((op, command));
    }

    /// Whether a command waits for a checkpoint.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether a command is queued, and none waits for a checkpoint.
    pub fn is_runnable(&self) -> bool {
        !self.waiting.is_empty() && !self.stalled
    }

    /// The command that [`CommandQueue::run_next`] carries out; `None` if none is queued or the first one waits for the next job of
    /// a checkpoint.
    ///
    /// A command that waits is tried again only when a job of the checkpoint has ended: each try may append records of a
    /// command that takes several, and so use up the room that is left. After the failure of a disk each try is an answer.
    pub fn next_command(&self) -> Option<&StoreCommand> {
        let waits = self.stalled && !self.may_have_room && self.pool.usable().is_ok();
        self.waiting.front().filter(|_| !waits).map(|(_, command)| command)
    }

    /// Carries out the next command, if there is one. `execute` is [`crate::execute`], or a test's function that fails.
    pub fn run_next(
        &mut self,
        execute: impl FnOnce(&mut Pool, &StoreCommand) -> Result<CommandCompletion, StoreError>,
        reports: &mut Vec<StoreReport>,
    ) {
        if self.next_command().is_none() {
            return;
        }
        let Some((op, command)) = self.waiting.pop_front() else { return };
        // The mirror must learn of jobs that let the command through as well: what the peer asks next may wait for the next
        // job.
        if self.stalled && std::mem::replace(&mut self.told, self.steps) < self.steps {
            reports.push(StoreReport::Progress { op, steps: self.steps });
        }
        (self.stalled, self.may_have_room) = (false, false);
        match execute(&mut self.pool, &command) {
            Ok(CommandCompletion::Done(output)) => reports.push(StoreReport::Answer { op, result: Ok(output) }),
            Ok(CommandCompletion::AfterSync) => self.awaiting_sync.push(op),
            Ok(CommandCompletion::AfterCheckpoint) => {
                self.waiting.push_front((op, command));
                self.stalled = true;
                self.told = self.steps;
            }
            Err(error) => reports.push(StoreReport::Answer { op, result: Err(error) }),
        }
    }

    /// Begins a sync if commands wait for one and none runs. If all writes are durable already, the commands are answered at
    /// once. The result of the job goes to [`CommandQueue::sync_done`].
    pub fn begin_sync(&mut self, reports: &mut Vec<StoreReport>) -> Option<SyncJob> {
        if self.syncing.is_some() || self.awaiting_sync.is_empty() {
            return None;
        }
        let covered = std::mem::take(&mut self.awaiting_sync);
        let job = self.pool.begin_sync();
        if job.is_some() {
            self.syncing = Some(covered);
        } else {
            let result = self.pool.usable().map(|()| StoreOutput::Done).map_err(|_| StoreError::Io);
            reports.extend(covered.into_iter().map(|op| StoreReport::Answer { op, result: result.clone() }));
        }
        job
    }

    /// Takes the result of a sync, and answers the commands that waited for it.
    ///
    /// # Errors
    /// The sync failed. Its commands are answered with [`StoreError::Io`].
    pub fn sync_done(&mut self, done: SyncDone, reports: &mut Vec<StoreReport>) -> Result<(), pool::StoreError> {
        let result = self.pool.complete_sync(done);
        let answer = if result.is_ok() { Ok(StoreOutput::Done) } else { Err(StoreError::Io) };
        let covered = self.syncing.take().unwrap_or_default();
        reports.extend(covered.into_iter().map(|op| StoreReport::Answer { op, result: answer.clone() }));
        result.map(drop)
    }

    /// Begins a checkpoint job if the pool has one to do and none runs. Its result goes to [`CommandQueue::checkpoint_job_done`].
    ///
    /// # Errors
    /// The pool cannot go on with its checkpoint, and refuses every command from now on.
    pub fn begin_checkpoint_job(&mut self) -> Result<Option<CheckpointJob>, pool::StoreError> {
        if self.job_runs || self.pool.usable().is_err() {
            return Ok(None);
        }
        let job = self.pool.checkpoint_job(self.job_extents)?;
        self.job_runs = job.is_some();
        // Without a job none will end, so a command that waits is tried again without one.
        self.may_have_room |= job.is_none();
        Ok(job)
    }

    /// Takes the result of a checkpoint job, which took this long, and reports the damage that a finished checkpoint has found.
    ///
    /// # Errors
    /// A disk failed, and the pool refuses every command from now on.
    pub fn checkpoint_job_done(
        &mut self,
        done: CheckpointDone,
        took: Duration,
        reports: &mut Vec<StoreReport>,
    ) -> Result<(), pool::StoreError> {
        self.job_runs = false;
        self.job_extents = next_job_extents(self.job_extents, took);
        self.may_have_room = true;
        self.pool.complete_checkpoint_job(done)?;
        self.steps += 1;
        let damaged = self.pool.take_damaged().into_iter();
        reports.extend(damaged.map(|(volume, extent)| StoreReport::Damaged { volume, extent }));
        Ok(())
    }
}

/// The number of extents of the next checkpoint job after one of `extents` that took this long.
fn next_job_extents(extents: usize, took: Duration) -> usize {
    if took > JOB_PERIOD {
        let fitting = extents as u128 * JOB_PERIOD.as_micros() / took.as_micros();
        return (fitting as usize).max(1);
    }
    if took < JOB_PERIOD / 4 { (extents * 2).min(MAX_JOB_EXTENTS) } else { extents }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_mirror::VolumeChange;
    use dyad_pool::PoolDisk;
    use dyad_pool::sim::{Faults, Seed, SimDisk, scratch_pool};
    use dyad_types::{BLOCK, BlockIndex, Epoch, Seq, Stamp};

    struct Fixture {
        queue: CommandQueue,
        disk: SimDisk,
        reports: Vec<StoreReport>,
        /// The number of the newest command.
        newest: u64,
        _index: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let index = tempfile::tempdir().unwrap();
            let disk = SimDisk::new(32 << 20, Seed(1));
            let device = || Box::new(disk.handle());
            let plug = || vec![PoolDisk { name: "disk".into(), device: device(), index: index.path().join("index") }];
            let queue = CommandQueue::new(scratch_pool(plug));
            Self { queue, disk, reports: Vec::new(), newest: 0, _index: index }
        }

        /// Queues a command and carries it out; returns its number.
        fn run(&mut self, command: StoreCommand) -> StoreOp {
            self.newest += 1;
            self.queue.push(StoreOp(self.newest), command);
            self.queue.run_next(|pool, command| crate::execute(pool, command, &mut |_| {}), &mut self.reports);
            StoreOp(self.newest)
        }

        /// Writes block 40, which has no place outside the journal.
        fn write(&mut self) -> StoreOp {
            let stamp = Stamp { epoch: Epoch(1), seq: Seq(2 + self.newest) };
            let (volume, block, data) = (VolumeId(1), BlockIndex(40), vec![9; BLOCK].into());
            self.run(StoreCommand::Write { volume, stamp, block, data })
        }

        fn checkpoint(&mut self) {
            self.queue.pool_mut().start_checkpoint();
            while let Some(job) = self.queue.begin_checkpoint_job().unwrap() {
                self.queue.checkpoint_job_done(job.run(), Duration::ZERO, &mut self.reports).unwrap();
            }
        }

        /// The answers since the last call.
        fn answers(&mut self) -> Vec<(StoreOp, bool)> {
            let answer = |report| match report {
                StoreReport::Answer { op, result } => Some((op, result.is_ok())),
                _ => None,
            };
            std::mem::take(&mut self.reports).into_iter().filter_map(answer).collect()
        }
    }

    #[test]
    fn a_checkpoint_job_on_a_slow_disk_is_small_and_grows_again() {
        let millis = Duration::from_millis;
        assert_eq!(next_job_extents(64, millis(1_000)), 16);
        assert_eq!(next_job_extents(64, millis(12_000)), 1);
        assert_eq!(next_job_extents(1, millis(2_000)), 1);
        assert_eq!(next_job_extents(16, millis(200)), 16);
        assert_eq!(next_job_extents(16, millis(10)), 32);
        assert_eq!(next_job_extents(64, Duration::ZERO), MAX_JOB_EXTENTS);
    }

    #[test]
    fn a_sync_answers_the_commands_that_were_carried_out_before_it_began() {
        let mut store = Fixture::new();
        let write = store.write();
        let first = store.run(StoreCommand::Sync);
        let job = store.queue.begin_sync(&mut store.reports).expect("a write is not durable");
        assert_eq!(store.answers(), [(write, true)]);
        let later_write = store.write();
        let second = store.run(StoreCommand::Sync);
        assert!(store.queue.begin_sync(&mut store.reports).is_none(), "one runs");
        store.queue.sync_done(job.run(), &mut store.reports).unwrap();
        assert_eq!(store.answers(), [(later_write, true), (first, true)]);
        let job = store.queue.begin_sync(&mut store.reports).expect("the later write is not durable");
        store.queue.sync_done(job.run(), &mut store.reports).unwrap();
        assert_eq!(store.answers(), [(second, true)]);
    }

    #[test]
    fn a_failed_sync_is_an_error_for_all_its_commands_and_for_all_later_ones() {
        let mut store = Fixture::new();
        store.write();
        let syncs = [store.run(StoreCommand::Sync), store.run(StoreCommand::Sync)];
        store.answers();
        store.disk.set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
        let job = store.queue.begin_sync(&mut store.reports).expect("a write is not durable");
        let done = job.run();
        store.disk.set_faults(Faults::default());
        store.queue.sync_done(done, &mut store.reports).unwrap_err();
        assert_eq!(store.answers(), [(syncs[0], false), (syncs[1], false)]);
        let late = [store.run(StoreCommand::Sync), store.write()];
        if let Some(job) = store.queue.begin_sync(&mut store.reports) {
            store.queue.sync_done(job.run(), &mut store.reports).unwrap_err();
        }
        let mut answers = store.answers();
        answers.sort();
        assert_eq!(answers, [(late[0], false), (late[1], false)]);
    }

    /// A deleted volume is freed by a checkpoint, and until then none with its id can be created.
    #[test]
    fn a_command_that_waits_for_a_checkpoint_is_refused_by_a_failed_pool() {
        let mut store = Fixture::new();
        let id = VolumeId(1);
        store.run(StoreCommand::Volume(VolumeChange::Delete { id }));
        let create = store.run(StoreCommand::Volume(VolumeChange::Create { id, size: 1 << 20 }));
        let behind = store.newest + 1;
        store.queue.push(StoreOp(behind), StoreCommand::ListUnconfirmed { volume: VolumeId(9) });
        assert!(store.queue.is_stalled() && store.queue.next_command().is_none());
        assert_eq!(store.answers(), [], "no command overtakes it");
        store.queue.pool_mut().start_checkpoint();
        let job = store.queue.begin_checkpoint_job().unwrap().expect("there is a volume to free");
        assert!(store.queue.next_command().is_none(), "no job has ended");
        store.disk.set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
        let mut reports = Vec::new();
        store.queue.checkpoint_job_done(job.run(), Duration::ZERO, &mut reports).unwrap_err();
        store.queue.run_next(|pool, command| crate::execute(pool, command, &mut |_| {}), &mut store.reports);
        assert_eq!(store.answers(), [(create, false)]);
        assert!(!store.queue.is_stalled());
    }

    /// The journal gives the block's place away at the end of the checkpoint: an error that the disk gave only once has then lost
    /// the block for good, and the mirror must get it from the peer.
    #[test]
    fn damage_that_a_checkpoint_meets_is_reported_at_its_end() {
        let mut store = Fixture::new();
        store.write();
        store.disk.set_faults(Faults { read_error: 1_000_000, ..Faults::default() });
        store.answers();
        store.checkpoint();
        store.disk.set_faults(Faults::default());
        assert_eq!(store.reports, [StoreReport::Damaged { volume: VolumeId(1), extent: ExtentIndex(2) }]);
        assert!(store.queue.pool().read(VolumeId(1), BlockIndex::range(40..41)).is_err());
        store.reports.clear();
        store.write();
        store.answers();
        store.checkpoint();
        assert_eq!(store.reports, [], "it is reported once, and a write mends it");
        store.queue.pool().read(VolumeId(1), BlockIndex::range(40..41)).unwrap();
    }
}
