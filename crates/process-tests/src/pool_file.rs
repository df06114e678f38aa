//! Copies of a block in a file that is a pool disk: in the journal, and after a checkpoint in a slot as well. The content is
//! searched, so nothing here depends on the format of the pool.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use dyad_types::BLOCK;

/// Bytes read at once in a search.
const CHUNK_BYTES: usize = 1 << 20;

/// Byte offsets of the copies of a block with this content, in ascending order. The daemon aligns blocks to their size.
///
/// # Errors
/// The file cannot be read.
pub fn find_copies(disk: &Path, content: &[u8; BLOCK]) -> Result<Vec<u64>> {
    let file = File::open(disk).with_context(|| format!("Cannot open {}.", disk.display()))?;
    let (size, mut chunk, mut found) = (file.metadata()?.len(), vec![0; CHUNK_BYTES], Vec::new());
    for start in (0..size).step_by(CHUNK_BYTES) {
        let bytes = CHUNK_BYTES.min(usize::try_from(size - start)?);
        file.read_exact_at(&mut chunk[..bytes], start)?;
        let blocks = chunk[..bytes].chunks_exact(BLOCK).zip((start..).step_by(BLOCK));
        found.extend(blocks.filter(|(block, _)| block == content).map(|(_, offset)| offset));
    }
    Ok(found)
}

/// Inverts one byte in each copy of a block, and returns the number of copies. The daemon may run: the bytes go through the
/// page cache to the disk, so that a read of the daemon with or without that cache gets them.
///
/// # Errors
/// The file cannot be read or written.
pub fn damage_copies(disk: &Path, content: &[u8; BLOCK]) -> Result<usize> {
    /// Place of the inverted byte, which is neither in the first nor in the last sector of the block.
    const PLACE: usize = BLOCK / 2;
    let copies = find_copies(disk, content)?;
    let file = File::options().write(true).open(disk)?;
    for offset in &copies {
        file.write_all_at(&[!content[PLACE]], offset + PLACE as u64)?;
    }
    file.sync_data()?;
    Ok(copies.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_is_damaged_once_and_other_blocks_stay() {
        let path = std::env::temp_dir().join(format!("dyad-pool-file-{}", std::process::id()));
        let (wanted, other) = ([7; BLOCK], [8; BLOCK]);
        let content = [other, wanted, [0; BLOCK], wanted].concat();
        std::fs::write(&path, &content).unwrap();
        assert_eq!(find_copies(&path, &wanted).unwrap(), [4096, 3 * 4096]);
        assert_eq!(damage_copies(&path, &wanted).unwrap(), 2);
        assert_eq!(find_copies(&path, &wanted).unwrap(), [0; 0]);
        let changed = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let places: Vec<usize> = (0..content.len()).filter(|at| changed[*at] != content[*at]).collect();
        assert_eq!(places, [4096 + 2048, 3 * 4096 + 2048]);
    }
}
