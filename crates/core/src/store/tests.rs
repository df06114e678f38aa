//! Tests of the store's thread on disks that are slow or refuse writes.

use super::*;
use dyad_mirror::StoreOutput;
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
    /// The time that each direct write takes: those of a checkpoint, not those of the journal.
    direct_write: Duration,
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
        if matches!(access, Access::Direct) {
            std::thread::sleep(self.direct_write);
        }
        self.file.write_at(access, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A pool whose volume 1 has one extent outside the journal, so that a read of it is a read of the disk.
fn pool(dir: &Path, refuses: &Arc<AtomicBool>) -> Pool {
    pool_on_slow_disk(dir, refuses, Duration::ZERO)
}

/// The same on a disk whose direct writes take this long.
fn pool_on_slow_disk(dir: &Path, refuses: &Arc<AtomicBool>, direct_write: Duration) -> Pool {
    let disk = || {
        let file = FileDisk::open(&dir.join("disk")).unwrap();
        let device = FaultyDisk { file, refuses: refuses.clone(), direct_write };
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
    let read = |op| store.run(StoreOp(op), StoreCommand::Read { volume: VolumeId(1), block: BlockIndex(0), count: 1 });
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

/// The disk works: the mirror must not take the store for a store that hangs.
#[test]
fn steps_of_a_slow_checkpoint_are_told_while_a_write_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = channel();
    let pool = pool_on_slow_disk(dir.path(), &Arc::default(), Duration::from_millis(40));
    let store = StoreHandle::start(pool, Vec::new(), EventSender(sender));
    // Each write changes all 16 extents of the volume, and the journal has room for less than half of all writes.
    const WRITES: u64 = 20;
    for seq in 0..WRITES {
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(2 + seq) };
        let data = vec![seq as u8; 256 * BLOCK].into();
        store.run(StoreOp(seq), StoreCommand::Write { volume: VolumeId(1), stamp, block: BlockIndex(0), data });
    }
    let (mut answered, mut told, mut newest) = (0, 0, 0);
    while answered < WRITES {
        match events.recv_timeout(TEST_TIMEOUT) {
            Ok(Event::Store(done)) => {
                assert_eq!((done.op, &done.result), (StoreOp(answered), &Ok(StoreOutput::Done)));
                answered += 1;
            }
            Ok(Event::StoreProgress { op, steps }) => {
                assert_eq!(op, StoreOp(answered), "the oldest command waits");
                assert!(steps > newest, "the number of steps grows");
                (told, newest) = (told + 1, steps);
            }
            other => panic!("{other:?}"),
        }
    }
    // While the first checkpoint runs, a write waits for its two jobs of 8 extents, its sync, its index and its label.
    assert!(told >= 4, "progress was told {told} times");
}

/// A flush of the peer may need several commands, each of which waits for one step: it learns of steps that let a command
/// through as well.
#[test]
fn steps_that_let_the_only_command_through_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = channel();
    let pool = pool_on_slow_disk(dir.path(), &Arc::default(), Duration::from_millis(40));
    let store = StoreHandle::start(pool, Vec::new(), EventSender(sender));
    // Each step takes at least 100 ms, so a step that was told less than 60 ms before the answer let the write through.
    let (mut waits, mut told_to_the_end) = (0, 0);
    for seq in 0..16 {
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(2 + seq) };
        let data = vec![seq as u8; 256 * BLOCK].into();
        store.run(StoreOp(seq), StoreCommand::Write { volume: VolumeId(1), stamp, block: BlockIndex(0), data });
        let mut newest_told: Option<Instant> = None;
        loop {
            match events.recv_timeout(TEST_TIMEOUT) {
                Ok(Event::Store(done)) => {
                    assert_eq!((done.op, &done.result), (StoreOp(seq), &Ok(StoreOutput::Done)));
                    break;
                }
                Ok(Event::StoreProgress { op, .. }) if op == StoreOp(seq) => newest_told = Some(Instant::now()),
                other => panic!("{other:?}"),
            }
        }
        if let Some(told) = newest_told {
            waits += 1;
            told_to_the_end += u32::from(told.elapsed() < Duration::from_millis(60));
        }
    }
    assert!(waits >= 4, "{waits} writes waited");
    assert!(told_to_the_end > waits / 2, "{told_to_the_end} of {waits}");
}
