//! Carries out the mirror's commands on a pool.

use dyad_mirror::{Inventory, StoreCommand, StoreError, StoreOutput, VolumeChange, VolumeInfo};
use dyad_pool::{self as pool, Pool, Position, ReadError};
use dyad_types::{
    BLOCK, BlockIndex, BlockMasks, EXTENT, EXTENT_BLOCKS, ExtentImage, ExtentIndex, ExtentSet, IndexRange, Run,
    VolumeId,
};
use std::ops::Range;

/// The step that completes a command.
#[derive(Debug)]
pub enum CommandCompletion {
    /// None: the command is complete, with this output.
    Done(StoreOutput),
    /// A sync of the pool that begins after the call.
    AfterSync,
    /// Checkpoint steps, because the journal has no room or a deleted volume is not freed yet. Then the same command is
    /// executed again, before any later one.
    AfterCheckpoint,
}

/// Lists the volumes and dirty extents of a pool: the mirror needs them at its start.
pub fn inventory(pool: &Pool) -> Inventory {
    let volumes = pool.volumes();
    let dirty = volumes.iter().filter_map(|v| Some((v.id, pool.dirty(v.id)?.clone()))).collect();
    let volumes = volumes.iter().map(|v| VolumeInfo { id: v.id, size: v.blocks * BLOCK as u64, last: v.last });
    Inventory { volumes: volumes.collect(), dirty }
}

/// Carries out one command of the mirror on the pool.
///
/// # Errors
/// `Corrupt` with the blocks that cannot be read, `NoVolume` or `NoSpace`, which the mirror handles; else `Io`. Each error
/// of a read, and each error that becomes `Io`, also goes to `report` with all its detail, for the log.
pub fn execute(
    pool: &mut Pool,
    command: &StoreCommand,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<CommandCompletion, StoreError> {
    match command {
        StoreCommand::Write { volume, stamp, block, data } => {
            journaled(pool.write(*volume, *stamp, *block, data.clone()), report)
        }
        StoreCommand::Discard { volume, stamp, block, count } => {
            let blocks = block.run(*count);
            let pieces = (blocks.start.0..blocks.end.0).step_by(pool::MAX_DISCARD_BLOCKS as usize);
            run_steps(pieces.map(BlockIndex), |first| {
                let end = first.run(pool::MAX_DISCARD_BLOCKS).end.min(blocks.end);
                journaled(pool.discard(*volume, *stamp, first..end), report)
            })
        }
        StoreCommand::WriteExtent { volume, stamp, extent, image, wanted, lost, use_reserve } => {
            let blocks = pool.volume(*volume).ok_or(StoreError::NoVolume)?.blocks;
            let runs = image.runs(*extent, *wanted, blocks);
            match pool.check_journal_room(&runs) {
                Err(pool::StoreError::JournalFull) => return Ok(CommandCompletion::AfterCheckpoint),
                Err(error) => return Err(store_error(&error, report)),
                Ok(()) => {}
            }
            let written = run_steps(runs, |run| {
                let result = match run {
                    Run::Data(block, data) if *use_reserve => pool.write_from_reserve(*volume, *stamp, block, data),
                    Run::Data(block, data) => pool.write(*volume, *stamp, block, data),
                    Run::Absent(blocks) => pool.discard(*volume, *stamp, blocks),
                };
                journaled(result, report)
            })?;
            match written {
                CommandCompletion::Done(_) if *lost != 0 => {
                    journaled(pool.mark_lost(*volume, *stamp, *extent, *lost), report)
                }
                written => Ok(written),
            }
        }
        StoreCommand::Read { volume, block, count } => match pool.read(*volume, block.run(*count)) {
            Ok(data) => Ok(CommandCompletion::Done(StoreOutput::Data(data))),
            // Sectors that the disk cannot read are reported as corrupt blocks: the mirror reads those from the peer.
            Err(ReadError::Io { .. }) => read_block_by_block(pool, *volume, block.run(*count), report),
            Err(error) => Err(read_error(error, report)),
        },
        StoreCommand::ReadExtent { volume, extent } => {
            read_extent(pool, *volume, *extent, report).map(|image| CommandCompletion::Done(StoreOutput::Extent(image)))
        }
        StoreCommand::Sync => Ok(CommandCompletion::AfterSync),
        StoreCommand::MarkDirty { marks } => {
            let ranges = marks.iter().flat_map(|(volume, ranges)| ranges.iter().map(|range| (*volume, range.clone())));
            match run_steps(ranges, |(volume, range)| journaled(pool.mark_dirty(volume, range), report))? {
                CommandCompletion::AfterCheckpoint => Ok(CommandCompletion::AfterCheckpoint),
                _ => Ok(CommandCompletion::AfterSync),
            }
        }
        StoreCommand::ClearDirty => {
            let marked = pool.volumes().into_iter().flat_map(|volume| {
                let ranges = pool.dirty(volume.id).into_iter().flat_map(ExtentSet::ranges);
                ranges.map(|range| (volume.id, range)).collect::<Vec<_>>()
            });
            let marked: Vec<_> = marked.collect();
            run_steps(marked, |(volume, range)| journaled(pool.clear_dirty(volume, range), report))
        }
        StoreCommand::Confirm { volume, seq } => match pool.confirm(*volume, *seq) {
            Ok(()) | Err(pool::StoreError::NoVolume { .. }) => Ok(CommandCompletion::Done(StoreOutput::Done)),
            Err(error) => Err(store_error(&error, report)),
        },
        StoreCommand::ListUnconfirmed { volume } => {
            let extents = pool.unconfirmed(*volume).unwrap_or_default();
            Ok(CommandCompletion::Done(StoreOutput::Unconfirmed(extents)))
        }
        StoreCommand::Volume(change) => match change_volume(pool, change) {
            Ok(_) => Ok(CommandCompletion::AfterSync),
            // `Exists`: a deleted volume with this id is still being freed, which a checkpoint completes, unless a disk has failed.
            Err(pool::StoreError::Exists { .. } | pool::StoreError::JournalFull) if pool.usable().is_ok() => {
                Ok(CommandCompletion::AfterCheckpoint)
            }
            Err(error) => Err(store_error(&error, report)),
        },
    }
}

/// Runs the steps of one command in order. Stops at the first step that is not done, whose completion then counts for
/// the whole command. The caller executes the whole command again after a checkpoint; each step is idempotent.
fn run_steps<T>(
    steps: impl IntoIterator<Item = T>,
    mut run: impl FnMut(T) -> Result<CommandCompletion, StoreError>,
) -> Result<CommandCompletion, StoreError> {
    for step in steps {
        match run(step)? {
            CommandCompletion::Done(_) => {}
            wait => return Ok(wait),
        }
    }
    Ok(CommandCompletion::Done(StoreOutput::Done))
}

/// The completion of a write to the journal.
fn journaled(
    result: Result<Position, pool::StoreError>,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<CommandCompletion, StoreError> {
    match result {
        Ok(_) => Ok(CommandCompletion::Done(StoreOutput::Done)),
        Err(pool::StoreError::JournalFull) => Ok(CommandCompletion::AfterCheckpoint),
        Err(error) => Err(store_error(&error, report)),
    }
}

/// Creates, resizes or deletes a volume. Each change is idempotent, as the mirror expects. A volume to be created may
/// exist already, unused and smaller, after an earlier attempt that was interrupted: then it is resized.
fn change_volume(pool: &mut Pool, change: &VolumeChange) -> Result<Position, pool::StoreError> {
    let blocks = |size: u64| size / BLOCK as u64;
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

/// Reads block by block, to find the blocks that cannot be read. Stops at the first such block and reports it and all
/// blocks after it as corrupt: the error recovery of a disk takes seconds per read, and the peer has the blocks.
fn read_block_by_block(
    pool: &Pool,
    volume: VolumeId,
    blocks: Range<BlockIndex>,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<CommandCompletion, StoreError> {
    let (mut data, mut bad) = (Vec::new(), Vec::new());
    for number in blocks.clone().each() {
        match pool.read(volume, number.run(1)) {
            Ok(one) => data.extend_from_slice(&one),
            Err(error @ (ReadError::Io { .. } | ReadError::Corrupt { .. })) => {
                report(&error);
                bad.extend((number..blocks.end).each());
                break;
            }
            Err(error) => return Err(read_error(error, report)),
        }
    }
    if bad.is_empty() {
        return Ok(CommandCompletion::Done(StoreOutput::Data(data.into())));
    }
    Err(StoreError::Corrupt { blocks: bad })
}

/// Reads an extent. Blocks that cannot be read are marked as bad in the image and cause no error.
fn read_extent(
    pool: &Pool,
    volume: VolumeId,
    extent: ExtentIndex,
    report: &mut dyn FnMut(&dyn std::error::Error),
) -> Result<ExtentImage, StoreError> {
    match pool.read_extent(volume, extent) {
        Ok(image) => Ok(image),
        Err(ReadError::Corrupt { .. } | ReadError::Io { .. }) => {
            let blocks = pool.volume(volume).ok_or(StoreError::NoVolume)?.blocks;
            let first = extent.first_block();
            let mut data = vec![0; EXTENT];
            let (mut present, mut bad) = (0u16, 0u16);
            for bit in 0..EXTENT_BLOCKS.min(blocks.saturating_sub(first.0)) {
                let at = bit as usize * BLOCK;
                match pool.read(volume, (first + bit).run(1)) {
                    // A block of zeros is left out: an absent block reads the same.
                    Ok(block) if block.iter().all(|byte| *byte == 0) => {}
                    Ok(block) => {
                        present |= 1 << bit;
                        data[at..at + BLOCK].copy_from_slice(&block);
                    }
                    Err(error @ (ReadError::Corrupt { .. } | ReadError::Io { .. })) => {
                        report(&error);
                        bad |= 1 << bit;
                    }
                    // The pool failed meanwhile: whether the block can be read is not known.
                    Err(error) => return Err(read_error(error, report)),
                }
            }
            Ok(ExtentImage::pack(BlockMasks { present, bad }, data.into()))
        }
        Err(error) => Err(read_error(error, report)),
    }
}

/// The mirror's error for an error of a write; `report` gets those that become [`StoreError::Io`].
fn store_error(error: &pool::StoreError, report: &mut dyn FnMut(&dyn std::error::Error)) -> StoreError {
    match error {
        pool::StoreError::NoSpace => StoreError::NoSpace,
        pool::StoreError::NoVolume { .. } => StoreError::NoVolume,
        other => {
            report(other);
            StoreError::Io
        }
    }
}

/// The mirror's error for an error of a read; `report` gets it.
fn read_error(error: ReadError, report: &mut dyn FnMut(&dyn std::error::Error)) -> StoreError {
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
    use dyad_pool::sim::{Faults, Seed, SimDisk, scratch_pool};
    use dyad_types::{Epoch, Seq, Stamp};
    use std::path::Path;

    /// A pool with one written extent, and the disk below it.
    fn pool(dir: &Path) -> (Pool, SimDisk) {
        let disk = SimDisk::new(32 << 20, Seed(1));
        let plug = || vec![PoolDisk { name: "disk".into(), device: Box::new(disk.handle()), index: dir.join("index") }];
        (scratch_pool(plug), disk)
    }

    fn read(pool: &mut Pool) -> Result<CommandCompletion, StoreError> {
        execute(pool, &StoreCommand::Read { volume: VolumeId(1), block: BlockIndex(2), count: 3 }, &mut |_| {})
    }

    /// The mirror heals corrupt blocks from the peer, so the node does not count as faulty.
    #[test]
    fn blocks_from_the_first_unreadable_one_on_count_as_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, disk) = pool(dir.path());
        disk.set_faults(Faults { read_error: 1_000_000, ..Faults::default() });
        assert_eq!(
            read(&mut pool).unwrap_err(),
            StoreError::Corrupt { blocks: vec![BlockIndex(2), BlockIndex(3), BlockIndex(4)] }
        );
        disk.set_faults(Faults::default());
        let Ok(CommandCompletion::Done(StoreOutput::Data(data))) = read(&mut pool) else {
            panic!("it can be read again")
        };
        assert_eq!(data[..], [7; 3 * BLOCK]);
    }

    /// The source of a resync could not read block 3: what this replica holds of it may be older.
    #[test]
    fn a_lost_block_of_a_copy_is_corrupt_and_the_other_blocks_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, _) = pool(dir.path());
        let image = ExtentImage { present: 0b100, bad: 0b1000, data: vec![9; BLOCK].into() };
        let copy = StoreCommand::WriteExtent {
            volume: VolumeId(1),
            stamp: Stamp { epoch: Epoch(1), seq: Seq(9) },
            extent: ExtentIndex(0),
            image: image.clone(),
            wanted: u16::MAX,
            lost: 0b1000,
            use_reserve: false,
        };
        execute(&mut pool, &copy, &mut |_| {}).unwrap();
        assert_eq!(read(&mut pool).unwrap_err(), StoreError::Corrupt { blocks: vec![BlockIndex(3)] });
        let extent = StoreCommand::ReadExtent { volume: VolumeId(1), extent: ExtentIndex(0) };
        let Ok(CommandCompletion::Done(StoreOutput::Extent(seen))) = execute(&mut pool, &extent, &mut |_| {}) else {
            panic!("the extent can be read")
        };
        assert_eq!(seen, image);
    }

    /// The command is carried out again after each step of the checkpoint: what it had written would use up the room.
    #[test]
    fn a_copy_that_waits_for_a_checkpoint_has_written_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, _) = pool(dir.path());
        let stamp = Stamp { epoch: Epoch(1), seq: Seq(9) };
        // Every other block is absent, so that the copy takes 16 records: 8 discards and 8 writes.
        let image = ExtentImage { present: 0xaaaa, bad: 0, data: vec![9; 8 * BLOCK].into() };
        let copy = StoreCommand::WriteExtent {
            volume: VolumeId(1),
            stamp,
            extent: ExtentIndex(1),
            image: image.clone(),
            wanted: u16::MAX,
            lost: 0,
            use_reserve: false,
        };
        let mut waited = 0;
        for _ in 0..2_000 {
            let write =
                StoreCommand::Write { volume: VolumeId(1), stamp, block: BlockIndex(0), data: vec![5; BLOCK].into() };
            execute(&mut pool, &write, &mut |_| {}).unwrap();
            let before = pool.last_position();
            match execute(&mut pool, &copy, &mut |_| {}).unwrap() {
                CommandCompletion::AfterCheckpoint => {
                    assert_eq!(pool.last_position(), before);
                    waited += 1;
                    pool.checkpoint_step(1).unwrap();
                }
                // At the end of the ring there is one more record.
                _ => assert!([16, 17].contains(&(pool.last_position().0 - before.0))),
            }
        }
        assert!(waited > 10, "the copy waited {waited} times");
        let extent = StoreCommand::ReadExtent { volume: VolumeId(1), extent: ExtentIndex(1) };
        let Ok(CommandCompletion::Done(StoreOutput::Extent(seen))) = execute(&mut pool, &extent, &mut |_| {}) else {
            panic!("the extent can be read")
        };
        assert_eq!(seen, image);
    }

    /// An attempt that was interrupted may have left a smaller, unused volume.
    #[test]
    fn a_volume_created_again_has_at_least_the_new_size() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, _) = pool(dir.path());
        for (wanted, blocks) in [(64, 64), (256, 256), (64, 256)] {
            let create = VolumeChange::Create { id: VolumeId(2), size: wanted * BLOCK as u64 };
            execute(&mut pool, &StoreCommand::Volume(create), &mut |_| {}).unwrap();
            assert_eq!(pool.volume(VolumeId(2)).unwrap().blocks, blocks);
        }
    }

    #[test]
    fn a_disk_that_failed_a_sync_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut pool, disk) = pool(dir.path());
        disk.set_faults(Faults { sync_error: 1_000_000, ..Faults::default() });
        pool.write(VolumeId(1), Stamp { epoch: Epoch(1), seq: Seq(2) }, BlockIndex(0), vec![8; BLOCK].into()).unwrap();
        pool.sync().unwrap_err();
        assert_eq!(read(&mut pool).unwrap_err(), StoreError::Io, "the node is faulty");
    }
}
