//! Offsets and sizes on a pool disk. The format byte by byte: `docs/formats.md`.

use dyad_types::EXTENT;

/// Bytes at each end of a disk that hold only labels; a disk counts as blank if both margins are zero.
pub(crate) const MARGIN: u64 = 1 << 20;
/// Smallest journal, in bytes.
pub(crate) const JOURNAL_MIN: u64 = 4 << 20;
/// Largest journal, in bytes.
pub(crate) const JOURNAL_MAX: u64 = 8 << 30;
/// Least number of extents of a disk.
pub(crate) const SLOTS_MIN: u64 = 64;

/// Offsets of the four labels of a disk of `size` bytes: two in front, two at the end.
pub(crate) fn label_offsets(size: u64) -> [u64; 4] {
    let end = size / EXTENT as u64 * EXTENT as u64;
    let step = EXTENT as u64;
    [0, step, end - 2 * step, end - step]
}

/// Sizes of a disk and of the journal on it, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskSizes {
    pub disk: u64,
    /// 0 on a disk without the journal.
    pub journal: u64,
}

/// Number of extents that fit on a disk beside its journal.
pub(crate) fn slots(sizes: DiskSizes) -> u64 {
    let end = sizes.disk / EXTENT as u64 * EXTENT as u64;
    end.saturating_sub(2 * MARGIN + sizes.journal) / EXTENT as u64
}

/// Bytes of the smallest usable disk with a journal of `journal` bytes.
pub(crate) fn smallest(journal: u64) -> u64 {
    2 * MARGIN + journal + SLOTS_MIN * EXTENT as u64
}

/// Bytes of the journal for a pool whose disks have `disks` bytes: 1 % of the pool within 256 MiB … 8 GiB, but never
/// more than a quarter of the first disk, which holds it.
pub(crate) fn journal_bytes(disks: &[u64]) -> u64 {
    let (total, first) = (disks.iter().sum::<u64>(), disks.first().copied().unwrap_or(0));
    let wanted = (total / 100).clamp(256 << 20, JOURNAL_MAX);
    let step = EXTENT as u64;
    (wanted.min(first / 4) / step * step).max(JOURNAL_MIN)
}

/// Bytes the index file system of a disk of `size` bytes should have: 512 B per extent and 128 MiB.
///
/// A record takes about 140 B; LMDB pages are half to full, and a commit copies the pages that it changes.
pub fn index_bytes(size: u64) -> u64 {
    size / EXTENT as u64 * 512 + (128 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_in_the_margins() {
        for size in [64 << 20, (64 << 20) + 12345, 1 << 40] {
            let [a, b, c, d] = label_offsets(size);
            assert!(b > a && b + 4096 <= MARGIN);
            assert!(c < d && d + 4096 <= size);
            assert!(MARGIN + (4 << 20) + slots(DiskSizes { disk: size, journal: 4 << 20 }) * EXTENT as u64 <= c);
        }
    }

    #[test]
    fn journal_follows_the_pool() {
        assert_eq!(journal_bytes(&[50 << 30, 50 << 30]), 1 << 30);
        assert_eq!(journal_bytes(&[1 << 30]), 256 << 20);
        assert_eq!(journal_bytes(&[1 << 40, u64::MAX / 2 - (1 << 40)]), JOURNAL_MAX);
        assert_eq!(journal_bytes(&[8 << 20]), JOURNAL_MIN);
    }
}
