//! The mirror's commands on a pool.

use dyad_mirror::{
    ExtentImage, ExtentSet, Inventory, Run, Stamp, StoreCommand, StoreError, StoreOutput, VolumeChange, VolumeInfo,
};
use dyad_pool::{self as pool, Pool, Position, ReadError};

/// What became of one command.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done(StoreOutput),
    /// It is done once a sync that begins after now is complete.
    AfterSync,
    /// The journal has no room: run checkpoint steps and give the same command again, before any later one.
    AfterCheckpoint,
}

/// What a mirror must know of its pool at start.
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

/// Carries out one command.
///
/// # Errors
/// As the mirror understands them. The pool's own words, for the log, go to `report`.
pub fn execute(
    pool: &mut Pool,
    command: &StoreCommand,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<Outcome, StoreError> {
    match command {
        StoreCommand::Write { volume, stamp, block, data } => {
            done(pool.write(*volume, stamp.epoch, stamp.seq, *block, data.clone()), report)
        }
        StoreCommand::Discard { volume, stamp, block, count } => {
            let end = block + count;
            let pieces = (*block..end).step_by(pool::MAX_DISCARD_BLOCKS as usize);
            each(pieces, |at| {
                let count = (end - at).min(pool::MAX_DISCARD_BLOCKS);
                done(pool.discard(*volume, stamp.epoch, stamp.seq, at, count), report)
            })
        }
        StoreCommand::WriteExtent { volume, stamp, extent, image, wanted } => {
            let blocks = pool.volume(*volume).ok_or(StoreError::NoVolume)?.blocks;
            each(image.runs(*extent, *wanted, blocks), |run| {
                let result = match run {
                    Run::Data(block, data) => pool.write(*volume, stamp.epoch, stamp.seq, block, data),
                    Run::Absent(block, count) => pool.discard(*volume, stamp.epoch, stamp.seq, block, count),
                };
                done(result, report)
            })
        }
        StoreCommand::Read { volume, block, count } => match pool.read(*volume, *block, *count) {
            Ok(data) => Ok(Outcome::Done(StoreOutput::Data(data))),
            // A sector that the disk cannot read is a damaged block like any other: the peer has it.
            Err(ReadError::Io { .. }) => read_singly(pool, *volume, *block, *count, report),
            Err(error) => Err(unread(error, report)),
        },
        StoreCommand::ReadExtent { volume, extent } => {
            read_extent(pool, *volume, *extent, report).map(|image| Outcome::Done(StoreOutput::Extent(image)))
        }
        StoreCommand::Sync => Ok(Outcome::AfterSync),
        StoreCommand::MarkDirty { marks } => {
            let ranges = marks.iter().flat_map(|(volume, ranges)| ranges.iter().map(|range| (*volume, range.clone())));
            match each(ranges, |(volume, range)| done(pool.mark_dirty(volume, range), report))? {
                Outcome::AfterCheckpoint => Ok(Outcome::AfterCheckpoint),
                _ => Ok(Outcome::AfterSync),
            }
        }
        StoreCommand::ClearDirty => {
            let marked = pool.volumes().into_iter().flat_map(|volume| {
                let set = pool.dirty(volume.id).map(extents).unwrap_or_default();
                set.ranges().map(|range| (volume.id, range)).collect::<Vec<_>>()
            });
            let marked: Vec<_> = marked.collect();
            each(marked, |(volume, range)| done(pool.clear_dirty(volume, range), report))
        }
        StoreCommand::Confirm { volume, seq } => match pool.confirm(*volume, *seq) {
            Ok(()) | Err(pool::StoreError::NoVolume { .. }) => Ok(Outcome::Done(StoreOutput::Done)),
            Err(error) => Err(refused(&error, report)),
        },
        StoreCommand::Tail { volume } => {
            let tail = pool.tail(*volume).as_ref().map(extents).unwrap_or_default();
            Ok(Outcome::Done(StoreOutput::Tail(tail)))
        }
        StoreCommand::Volume(change) => match change_volume(pool, change) {
            Ok(_) => Ok(Outcome::AfterSync),
            // The id is still being freed: a checkpoint finishes that.
            Err(pool::StoreError::Exists { .. } | pool::StoreError::JournalFull) => Ok(Outcome::AfterCheckpoint),
            Err(error) => Err(refused(&error, report)),
        },
    }
}

/// Runs the steps of one command; the whole of it is given again if one must wait, which repeats harmlessly.
fn each<T>(
    steps: impl IntoIterator<Item = T>,
    mut run: impl FnMut(T) -> Result<Outcome, StoreError>,
) -> Result<Outcome, StoreError> {
    for step in steps {
        match run(step)? {
            Outcome::Done(_) => {}
            wait => return Ok(wait),
        }
    }
    Ok(Outcome::Done(StoreOutput::Done))
}

fn done(
    result: Result<Position, pool::StoreError>,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<Outcome, StoreError> {
    match result {
        Ok(_) => Ok(Outcome::Done(StoreOutput::Done)),
        Err(pool::StoreError::JournalFull) => Ok(Outcome::AfterCheckpoint),
        Err(error) => Err(refused(&error, report)),
    }
}

/// Each change is idempotent, as the mirror expects. What is made is there already if an earlier attempt was cut short before
/// anybody used it; that one may have wanted a smaller one.
fn change_volume(pool: &mut Pool, change: &VolumeChange) -> Result<Position, pool::StoreError> {
    let blocks = |size: u64| size / pool::BLOCK as u64;
    let existing = pool.volume(change.id()).map(|volume| volume.blocks);
    match (*change, existing) {
        (VolumeChange::Create { id, size }, None) => pool.create_volume(id, blocks(size)),
        (VolumeChange::Delete { id }, Some(_)) => pool.delete_volume(id),
        (VolumeChange::Create { id, size } | VolumeChange::Resize { id, size }, Some(now)) if blocks(size) > now => {
            pool.resize_volume(id, blocks(size))
        }
        (VolumeChange::Resize { id, .. }, None) => Err(pool::StoreError::NoVolume { volume: id }),
        _ => Ok(pool.last_position()),
    }
}

/// Reads block by block, to name those that cannot be read. From the first one on all count as such, unread: a sick disk
/// takes seconds for each, and the peer has them.
fn read_singly(
    pool: &Pool,
    volume: u64,
    block: u64,
    count: u64,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<Outcome, StoreError> {
    let (mut data, mut bad) = (Vec::new(), Vec::new());
    for number in block..block + count {
        match pool.read(volume, number, 1) {
            Ok(one) => data.extend_from_slice(&one),
            Err(error @ (ReadError::Io { .. } | ReadError::Corrupt { .. })) => {
                report(&error);
                bad.extend(number..block + count);
                break;
            }
            Err(error) => return Err(unread(error, report)),
        }
    }
    if bad.is_empty() {
        return Ok(Outcome::Done(StoreOutput::Data(data.into())));
    }
    Err(StoreError::Corrupt { blocks: bad })
}

/// An extent with its damaged blocks named instead of an error.
fn read_extent(
    pool: &Pool,
    volume: u64,
    extent: u64,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<ExtentImage, StoreError> {
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
                    Ok(block) if block.iter().all(|byte| *byte == 0) => {}
                    Ok(block) => {
                        present |= 1 << bit;
                        data[place..place + pool::BLOCK].copy_from_slice(&block);
                    }
                    Err(error) => {
                        report(&error);
                        bad |= 1 << bit;
                    }
                }
            }
            Ok(pack(present, bad, &data))
        }
        Err(error) => Err(unread(error, report)),
    }
}

fn pack(present: u16, bad: u16, data: &[u8]) -> ExtentImage {
    let blocks = data.chunks_exact(pool::BLOCK).enumerate().filter(|(i, _)| present & 1 << i != 0);
    let data: Vec<u8> = blocks.flat_map(|(_, block)| block.iter().copied()).collect();
    ExtentImage { present, bad, data: data.into() }
}

fn refused(error: &pool::StoreError, report: &mut dyn FnMut(&dyn std::error::Error)) -> StoreError {
    match error {
        pool::StoreError::NoSpace => StoreError::NoSpace,
        pool::StoreError::NoVolume { .. } => StoreError::NoVolume,
        other => {
            report(other);
            StoreError::Io
        }
    }
}

fn unread(error: ReadError, report: &mut dyn FnMut(&dyn std::error::Error)) -> StoreError {
    report(&error);
    match error {
        ReadError::Corrupt { blocks, .. } => StoreError::Corrupt { blocks },
        ReadError::NoVolume { .. } => StoreError::NoVolume,
        _ => StoreError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_pool::PoolDisk;
    use dyad_pool::sim::{Faults, SimDisk, scratch_pool};
    use std::path::Path;

    /// A pool with one written extent, and the disk below it.
    fn pool(dir: &Path) -> (Pool, SimDisk) {
        let disk = SimDisk::new(32 << 20, 1);
        let plug = || vec![PoolDisk { name: "disk".into(), device: Box::new(disk.handle()), index: dir.join("index") }];
        (scratch_pool(plug), disk)
    }

    fn read(pool: &mut Pool) -> Result<Outcome, StoreError> {
        execute(pool, &StoreCommand::Read { volume: 1, block: 2, count: 3 }, &mut |_| {})
    }

    /// Such a block is healed from the peer; the disk, and with it the node, is as good as before.
    #[test]
    fn a_block_that_cannot_be_read_is_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, disk) = pool(dir.path());
        disk.set_faults(Faults { read_error: 1_000_000, ..Faults::default() });
        assert_eq!(read(&mut pool).unwrap_err(), StoreError::Corrupt { blocks: vec![2, 3, 4] });
        disk.set_faults(Faults::default());
        let Ok(Outcome::Done(StoreOutput::Data(data))) = read(&mut pool) else { panic!("it can be read again") };
        assert_eq!(data[..], [7; 3 * pool::BLOCK]);
    }

    /// An attempt that was cut short has left a volume that nobody used.
    #[test]
    fn what_is_made_again_has_at_least_the_size_that_is_wanted_now() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, _) = pool(dir.path());
        for (wanted, blocks) in [(64, 64), (256, 256), (64, 256)] {
            let create = VolumeChange::Create { id: 2, size: wanted * pool::BLOCK as u64 };
            execute(&mut pool, &StoreCommand::Volume(create), &mut |_| {}).unwrap();
            assert_eq!(pool.volume(2).unwrap().blocks, blocks);
        }
    }

    #[test]
    fn a_disk_that_failed_a_write_is_not_read_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, disk) = pool(dir.path());
        disk.set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
        pool.write(1, 1, 2, 0, vec![8; pool::BLOCK].into()).unwrap();
        pool.sync().unwrap_err();
        assert_eq!(read(&mut pool).unwrap_err(), StoreError::Io, "the node is faulty");
    }
}
