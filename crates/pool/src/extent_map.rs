//! The extent map, in memory: on which disk each stored extent is.
//!
//! An extent that is neither here nor in an overlay reads as zeros. If an extent is here and its record is missing in
//! the index, the index is damaged.

use dyad_types::{ExtentIndex, VolumeId};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Extents per chunk, one byte each.
const CHUNK: u64 = 4096;

struct Chunk {
    /// One byte per extent: 0 = not stored, otherwise the number of its disk + 1.
    disks: Box<[u8; CHUNK as usize]>,
    /// Number of extents that are stored.
    used: u32,
}

/// One byte per extent, in chunks; a chunk without a stored extent is absent.
#[derive(Default)]
pub(crate) struct ExtentMap {
    chunks: BTreeMap<(VolumeId, u64), Chunk>,
}

impl ExtentMap {
    /// The number of the disk that stores an extent; `None` if it is not stored.
    pub fn get(&self, volume: VolumeId, extent: ExtentIndex) -> Option<usize> {
        let chunk = self.chunks.get(&(volume, extent.0 / CHUNK))?;
        usize::from(chunk.disks[(extent.0 % CHUNK) as usize]).checked_sub(1)
    }

    /// Sets the number of the disk that stores an extent; `None` removes the extent.
    pub fn set(&mut self, volume: VolumeId, extent: ExtentIndex, disk: Option<usize>) {
        let mut entry = match self.chunks.entry((volume, extent.0 / CHUNK)) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(_) if disk.is_none() => return,
            Entry::Vacant(entry) => entry.insert_entry(Chunk { disks: Box::new([0; CHUNK as usize]), used: 0 }),
        };
        let chunk = entry.get_mut();
        let cell = &mut chunk.disks[(extent.0 % CHUNK) as usize];
        chunk.used -= u32::from(*cell != 0);
        *cell = disk.map_or(0, |d| d as u8 + 1);
        chunk.used += u32::from(*cell != 0);
        if chunk.used == 0 {
            entry.remove();
        }
    }

    /// The stored extents of a volume with the lowest numbers, at most `limit`.
    pub fn first(&self, volume: VolumeId, limit: usize) -> Vec<ExtentIndex> {
        self.chunks
            .range((volume, 0)..=(volume, u64::MAX))
            .flat_map(|((_, number), chunk)| {
                chunk
                    .disks
                    .iter()
                    .zip(number * CHUNK..)
                    .filter(|(disk, _)| **disk != 0)
                    .map(|(_, extent)| ExtentIndex(extent))
            })
            .take(limit)
            .collect()
    }

    /// Number of stored extents of a volume.
    pub fn count(&self, volume: VolumeId) -> u64 {
        self.chunks.range((volume, 0)..=(volume, u64::MAX)).map(|(_, c)| u64::from(c.used)).sum()
    }

    /// The volumes that have a stored extent; a volume comes once per chunk.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeId> + '_ {
        self.chunks.keys().map(|(volume, _)| *volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_found_counted_and_removed() {
        let mut extent_map = ExtentMap::default();
        extent_map.set(VolumeId(1), ExtentIndex(5000), Some(0));
        extent_map.set(VolumeId(1), ExtentIndex(3), Some(23));
        extent_map.set(VolumeId(2), ExtentIndex(3), Some(1));
        extent_map.set(VolumeId(2), ExtentIndex(9), None);
        assert_eq!(
            (
                extent_map.get(VolumeId(1), ExtentIndex(5000)),
                extent_map.get(VolumeId(1), ExtentIndex(3)),
                extent_map.get(VolumeId(1), ExtentIndex(4))
            ),
            (Some(0), Some(23), None)
        );
        assert_eq!(
            (extent_map.first(VolumeId(1), 9), extent_map.first(VolumeId(1), 1)),
            (vec![ExtentIndex(3), ExtentIndex(5000)], vec![ExtentIndex(3)])
        );
        extent_map.set(VolumeId(1), ExtentIndex(3), None);
        assert_eq!(
            (extent_map.count(VolumeId(1)), extent_map.count(VolumeId(2)), extent_map.count(VolumeId(3))),
            (1, 1, 0)
        );
        extent_map.set(VolumeId(2), ExtentIndex(3), None);
        assert_eq!(extent_map.volumes().collect::<Vec<_>>(), [VolumeId(1)]);
    }
}
