//! A simulated disk that keeps live and durable bytes apart, per 512-byte sector. All its random choices come from one
//! seed.
//!
//! Reads return the live bytes. For each sector written since the last sync the disk keeps older versions: the durable
//! one and the last three before the live one. [`SimDisk::crash`] is a loss of power: each such sector gets any of
//! these versions or stays live, so writes are lost, reordered and torn. Faults have probabilities that a test may
//! change at any time.
//!
//! The live bytes of [`Access::Cached`] are those of the kernel's page cache, which outlives the process. As in Linux, a
//! failed sync ends with pages that count as written: the medium has any version of each sector, the cache has the newest
//! one, and no later sync writes it. Only a read with [`Access::Direct`] and a loss of power show the difference.

mod scratch;
mod unsynced;

pub use scratch::{format_options, scratch_pool};

use crate::{Access, Disk};
use dyad_types::BLOCK;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use unsynced::{SECTOR, UnsyncedSectors};

/// Probability of each fault per operation, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A sync reports success and makes no write durable.
    pub lying_sync: u32,
    /// A write reports success and writes no byte.
    pub lost_write: u32,
    /// A write reports success and goes to another offset, a multiple of 4 KiB.
    pub misdirected_write: u32,
    /// One bit of the range that is read flips on the medium, and stays so.
    pub bit_flip: u32,
    /// A read fails with EIO; the next read may succeed.
    pub read_error: u32,
    /// A write fails with EIO and writes no byte; the next write may succeed.
    pub write_error: u32,
    /// A sync fails with EIO; the next sync may succeed. What was written through the page cache before stays in the
    /// cache, and the medium keeps any version of it, for which no later sync is responsible.
    pub sync_error: u32,
}

/// Event counters of a simulated disk since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub syncs: u64,
    pub crashes: u64,
    /// Number of sectors that lost their newest bytes in a loss of power.
    pub lost_sectors: u64,
    /// Number of injected faults, losses of power not included.
    pub faults: u64,
}

struct DiskState {
    live: Vec<u8>,
    unsynced: UnsyncedSectors,
    /// By sector: whether the newest write of it was with [`Access::Direct`].
    uncached: Vec<bool>,
    /// The sectors whose live bytes are only in the page cache and count as written, each with the bytes of the medium.
    only_in_cache: BTreeMap<u64, [u8; SECTOR]>,
    /// State of the generator of random numbers.
    random: u64,
    faults: Faults,
    counts: Counts,
    /// Number of crashes and kills. Handles from before the last one fail.
    restarts: u64,
    power: Arc<Power>,
}

/// The power supply that the disks of one machine share.
struct Power {
    /// Number of operations until the power fails, or [`UNLIMITED`] or [`OFF`].
    operations_left: AtomicI64,
}

/// Value of `operations_left`: the power does not fail.
const UNLIMITED: i64 = i64::MAX;
/// Value of `operations_left`: the power has failed.
const OFF: i64 = -1;

impl Power {
    fn new() -> Arc<Self> {
        Arc::new(Self { operations_left: AtomicI64::new(UNLIMITED) })
    }

    /// Whether the power is on for the next operation. If the operation is `counted`, one operation less is left.
    fn is_on(&self, counted: bool) -> bool {
        let left = self.operations_left.load(Ordering::SeqCst);
        if counted && left != UNLIMITED && left != OFF {
            self.operations_left.store(left - 1, Ordering::SeqCst);
            return left > 0;
        }
        left != OFF
    }
}

/// The number that decides all random choices of a simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// One simulated disk. Clones are handles to the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<DiskState>>,
    /// Value of `DiskState::restarts` when the handle was made.
    restarts: u64,
}

impl SimDisk {
    /// A blank disk of `size` bytes whose random choices come from `seed`.
    pub fn new(size: u64, seed: Seed) -> Self {
        Self::powered_by(size, seed, Power::new())
    }

    /// Blank disks of one machine: they lose power together.
    pub fn together(sizes: &[u64], seed: Seed) -> Vec<Self> {
        let power = Power::new();
        sizes.iter().zip(seed.0..).map(|(size, seed)| Self::powered_by(*size, Seed(seed), power.clone())).collect()
    }

    fn powered_by(size: u64, seed: Seed, power: Arc<Power>) -> Self {
        let state = DiskState {
            live: vec![0; size as usize],
            unsynced: UnsyncedSectors::new((size as usize).div_ceil(SECTOR)),
            uncached: vec![false; (size as usize).div_ceil(SECTOR)],
            only_in_cache: BTreeMap::new(),
            random: seed.0,
            faults: Faults::default(),
            counts: Counts::default(),
            restarts: 0,
            power,
        };
        Self { state: Arc::new(Mutex::new(state)), restarts: 0 }
    }

    /// A handle that is valid until the next crash or kill.
    pub fn handle(&self) -> SimDisk {
        SimDisk { restarts: self.lock().restarts, state: self.state.clone() }
    }

    /// Sets the probabilities of faults; they hold until the next call.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The event counters at this moment.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Lets the power of this disk's machine fail after `operations` more writes, syncs and checks of all its disks.
    /// Every later operation fails until [`SimDisk::crash`] or [`SimDisk::kill`].
    pub fn cut_power_after(&self, operations: u32) {
        self.lock().power.operations_left.store(operations.into(), Ordering::SeqCst);
    }

    /// Whether an operation has failed because of [`SimDisk::cut_power_after`].
    pub fn is_power_cut(&self) -> bool {
        self.lock().power.operations_left.load(Ordering::SeqCst) == OFF
    }

    /// Loss and return of power: each sector that is not synced gets any of its versions, the page cache is empty, and
    /// existing handles fail.
    pub fn crash(&self) {
        let mut state = self.lock();
        for (sector, medium) in std::mem::take(&mut state.only_in_cache) {
            state.live[sector as usize * SECTOR..][..SECTOR].copy_from_slice(&medium);
            state.counts.lost_sectors += 1;
        }
        for sector in state.unsynced.sectors() {
            if let Some(version) = state.any_version(sector) {
                let at = sector as usize * SECTOR;
                state.live[at..at + SECTOR].copy_from_slice(&version);
                state.counts.lost_sectors += 1;
            }
        }
        state.unsynced.clear();
        state.counts.crashes += 1;
        state.restart();
    }

    /// End of the process that uses the disk: no byte is lost, the page cache stays, and existing handles fail.
    pub fn kill(&self) {
        self.lock().restart();
    }

    /// Flips one bit of the medium.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        self.lock().live[offset as usize] ^= 1 << (bit % 8);
    }

    /// Overwrites bytes of the medium, durably; not counted as a write.
    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.lock();
        let at = offset as usize;
        state.live[at..at + bytes.len()].copy_from_slice(bytes);
        for sector in offset / SECTOR as u64..=(offset + bytes.len() as u64 - 1) / SECTOR as u64 {
            state.unsynced.forget(sector);
            state.only_in_cache.remove(&sector);
        }
    }

    /// The live bytes of the medium, without injected faults.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.lock().live[offset as usize..offset as usize + len].to_vec()
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the disk for one operation; an error if the handle is from before a crash or the power is off.
    fn begin_operation(&self, counted: bool) -> io::Result<MutexGuard<'_, DiskState>> {
        let state = self.lock();
        if state.restarts != self.restarts {
            return Err(io::Error::other("this handle is from before the last crash"));
        }
        if !state.power.is_on(counted) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(state)
    }
}

impl DiskState {
    /// splitmix64. The library cannot depend on `dyad-testkit`, which has the same generator.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number from 0 to `bound` - 1.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether a fault with this probability occurs now; counts it.
    fn occurs(&mut self, millionths: u32) -> bool {
        let occurred = millionths > 0 && self.below(1_000_000) < u64::from(millionths);
        self.counts.faults += u64::from(occurred);
        occurred
    }

    fn restart(&mut self) {
        self.restarts += 1;
        self.power.operations_left.store(UNLIMITED, Ordering::SeqCst);
    }

    fn write(&mut self, access: Access, offset: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(SECTOR).enumerate() {
            let at = offset as usize + i * SECTOR;
            let sector = (at / SECTOR) as u64;
            let mut old = [0; SECTOR];
            old.copy_from_slice(&self.live[at..at + SECTOR]);
            // The durable version of a sector that is only in the page cache is that of the medium.
            let old = self.only_in_cache.remove(&sector).unwrap_or(old);
            self.uncached[sector as usize] = access == Access::Direct;
            self.unsynced.push(sector, &old);
            self.live[at..at + SECTOR].copy_from_slice(chunk);
        }
    }

    /// The outcome of a failed sync: what the page cache had to write counts as written. What was written without the
    /// page cache is still in the cache of the disk.
    fn fail_sync(&mut self) {
        for sector in self.unsynced.sectors() {
            if self.uncached[sector as usize] {
                continue;
            }
            if let Some(version) = self.any_version(sector) {
                self.only_in_cache.insert(sector, version);
            }
            self.unsynced.forget(sector);
        }
    }

    /// Any version of an unsynced sector, drawn at random; `None` = the live one.
    fn any_version(&mut self, sector: u64) -> Option<[u8; SECTOR]> {
        let pick = self.below(self.unsynced.count(sector) as u64 + 1) as usize;
        self.unsynced.version(sector, pick)
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Disk for SimDisk {
    fn size(&self) -> u64 {
        self.lock().live.len() as u64
    }

    fn read_at(&self, access: Access, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        check_alignment(access, offset, buffer)?;
        let mut state = self.begin_operation(false)?;
        state.counts.reads += 1;
        let faults = state.faults;
        if state.occurs(faults.read_error) {
            return Err(eio());
        }
        if state.occurs(faults.bit_flip) {
            let bit = state.below(buffer.len() as u64 * 8);
            state.live[offset as usize + (bit / 8) as usize] ^= 1 << (bit % 8);
        }
        buffer.copy_from_slice(&state.live[offset as usize..offset as usize + buffer.len()]);
        if access == Access::Direct {
            for (sector, bytes) in (offset / SECTOR as u64..).zip(buffer.chunks_exact_mut(SECTOR)) {
                if let Some(medium) = state.only_in_cache.get(&sector) {
                    bytes.copy_from_slice(medium);
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, access: Access, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check_alignment(access, offset, bytes)?;
        let mut state = self.begin_operation(true)?;
        state.counts.writes += 1;
        let faults = state.faults;
        if state.occurs(faults.write_error) {
            return Err(eio());
        }
        if state.occurs(faults.lost_write) {
            return Ok(());
        }
        let mut offset = offset;
        if state.occurs(faults.misdirected_write) {
            let places = (state.live.len() - bytes.len()) as u64 / 4096 + 1;
            offset = state.below(places) * 4096;
        }
        state.write(access, offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.begin_operation(true)?;
        state.counts.syncs += 1;
        let faults = state.faults;
        if state.occurs(faults.sync_error) {
            state.fail_sync();
            return Err(eio());
        }
        if !state.occurs(faults.lying_sync) {
            state.unsynced.clear();
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        self.begin_operation(true).map(|_| ())
    }
}

/// Refuses an access that is not aligned, as a real disk with O_DIRECT does.
fn check_alignment(access: Access, offset: u64, buffer: &[u8]) -> io::Result<()> {
    let unit = if access == Access::Direct { BLOCK } else { SECTOR };
    let memory = access == Access::Direct && buffer.as_ptr().align_offset(BLOCK) != 0;
    if memory || !offset.is_multiple_of(unit as u64) || !buffer.len().is_multiple_of(unit) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(())
}
