//! Older versions of the sectors that were written since the last sync.

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Most versions that are kept of one sector: the durable one, and the last three before the live one.
const MAX_VERSIONS: usize = 4;

/// The older versions of each sector that was written since the last sync: the durable one first, then the last ones before
/// the live one.
///
/// The simulator writes and syncs all the time, so this takes no memory from the allocator for each sector.
pub struct UnsyncedSectors {
    /// By sector: the places of its versions in `bytes`, each plus one; 0 = no further version.
    places: Vec<[u32; MAX_VERSIONS]>,
    /// The sectors that have versions, and some that have none any more.
    written: Vec<u64>,
    bytes: Vec<[u8; SECTOR]>,
}

impl UnsyncedSectors {
    /// Those of a disk of `sectors` sectors that was never written.
    pub fn new(sectors: usize) -> Self {
        Self { places: vec![[0; MAX_VERSIONS]; sectors], written: Vec::new(), bytes: Vec::new() }
    }

    /// Keeps `old`, which is about to be overwritten. If the sector has all its versions, the second oldest one goes.
    pub fn push(&mut self, sector: u64, old: &[u8; SECTOR]) {
        let places = &mut self.places[sector as usize];
        if let Some(free) = places.iter_mut().find(|place| **place == 0) {
            self.bytes.push(*old);
            *free = self.bytes.len() as u32;
        } else {
            places[1..].rotate_left(1);
            self.bytes[places[MAX_VERSIONS - 1] as usize - 1] = *old;
        }
        if places[1] == 0 {
            self.written.push(sector);
        }
    }

    /// Forgets the versions of one sector.
    pub fn forget(&mut self, sector: u64) {
        self.places[sector as usize] = [0; MAX_VERSIONS];
    }

    /// Forgets all versions, because the live bytes are durable.
    pub fn clear(&mut self) {
        for sector in self.written.drain(..) {
            self.places[sector as usize] = [0; MAX_VERSIONS];
        }
        self.bytes.clear();
    }

    /// The sectors that have versions, in ascending order.
    pub fn sectors(&self) -> Vec<u64> {
        let mut sectors = self.written.clone();
        sectors.sort_unstable();
        sectors.dedup();
        sectors.retain(|sector| self.places[*sector as usize][0] != 0);
        sectors
    }

    /// Number of versions of this sector.
    pub fn count(&self, sector: u64) -> usize {
        self.places[sector as usize].iter().filter(|place| **place != 0).count()
    }

    /// A version of this sector, 0 = the durable one; `None` if it has not so many.
    pub fn version(&self, sector: u64, version: usize) -> Option<[u8; SECTOR]> {
        let place = *self.places[sector as usize].get(version)?;
        self.bytes.get((place as usize).checked_sub(1)?).copied()
    }
}
