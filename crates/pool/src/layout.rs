//! Offsets and sizes on a pool disk. `docs/formats.md` describes the format byte by byte.

use dyad_types::EXTENT;

/// Bytes at each end of a disk that hold nothing but labels. A disk counts as blank if both margins are all zeros.
pub(crate) const MARGIN: u64 = 1 << 20;
/// Smallest length of a journal in bytes.
pub(crate) const JOURNAL_MIN: u64 = 4 << 20;
/// Largest length of a journal in bytes.
pub(crate) const JOURNAL_MAX: u64 = 8 << 30;
/// Smallest number of slots of a pool disk.
pub(crate) const SLOTS_MIN: u64 = 64;

/// Byte offsets of the four labels of a disk of `size` bytes: two at its start, two at its end.
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

/// Number of slots that fit on a disk between its journal and its end.
pub(crate) fn slot_count(sizes: DiskSizes) -> u64 {
    let end = sizes.disk / EXTENT as u64 * EXTENT as u64;
    end.saturating_sub(2 * MARGIN + sizes.journal) / EXTENT as u64
}

/// Size in bytes of the smallest disk that can be a pool disk with a journal of `journal` bytes on it.
pub(crate) fn min_disk_bytes(journal: u64) -> u64 {
    2 * MARGIN + journal + SLOTS_MIN * EXTENT as u64
}

/// Default length of the journal for a pool whose disks have `disks` bytes: 1 % of the pool within 256 MiB … 8 GiB, at
/// most a quarter of the first disk, which holds it, but at least 4 MiB.
pub(crate) fn journal_bytes(disks: &[u64]) -> u64 {
    let (total, first) = (disks.iter().sum::<u64>(), disks.first().copied().unwrap_or(0));
    let wanted = (total / 100).clamp(256 << 20, JOURNAL_MAX);
    let step = EXTENT as u64;
    (wanted.min(first / 4) / step * step).max(JOURNAL_MIN)
}

/// Bytes that the file system for the index of a disk of `size` bytes should have: 512 B per extent, and 128 MiB.
///
/// An extent's record takes about 140 B. LMDB's pages are between half full and full, and a commit copies the pages
/// that it changes.
pub fn index_bytes(size: u64) -> u64 {
    size / EXTENT as u64 * 512 + (128 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lie_in_the_margins_and_slots_between_them() {
        for size in [64 << 20, (64 << 20) + 12345, 1 << 40] {
            let [a, b, c, d] = label_offsets(size);
            assert!(b > a && b + 4096 <= MARGIN);
            assert!(c < d && d + 4096 <= size);
            assert!(MARGIN + (4 << 20) + slot_count(DiskSizes { disk: size, journal: 4 << 20 }) * EXTENT as u64 <= c);
        }
    }

    #[test]
    fn the_journal_has_one_percent_of_the_pool_within_its_limits() {
        assert_eq!(journal_bytes(&[50 << 30, 50 << 30]), 1 << 30);
        assert_eq!(journal_bytes(&[1 << 30]), 256 << 20);
        assert_eq!(journal_bytes(&[1 << 40, u64::MAX / 2 - (1 << 40)]), JOURNAL_MAX);
        assert_eq!(journal_bytes(&[8 << 20]), JOURNAL_MIN);
    }
}
