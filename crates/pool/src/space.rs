//! Free slots of every disk. Rebuilt from the indexes at open.

/// A disk's slots as bits; set = taken.
struct Map {
    words: Vec<u64>,
    slots: u64,
    free: u64,
    /// The slot after the last one allocated. Allocation searches upwards from here and wraps, so that extents
    /// written one after another are neighbours on the disk.
    cursor: u64,
}

/// The free map of the node.
pub(crate) struct Space {
    maps: Vec<Map>,
    /// Slots reserved for extents in the overlay that have no slot yet.
    reserved: u64,
    /// Slots that guest writes never take.
    reserve: u64,
}

impl Space {
    pub fn new(slots: &[u64]) -> Self {
        let map =
            |slots: &u64| Map { words: vec![0; slots.div_ceil(64) as usize], slots: *slots, free: *slots, cursor: 0 };
        let total: u64 = slots.iter().sum();
        Self { maps: slots.iter().map(map).collect(), reserved: 0, reserve: (total / 100).clamp(4, 4096) }
    }

    /// Marks a slot taken; false if it is out of range or taken already.
    pub fn take(&mut self, disk: usize, slot: u64) -> bool {
        let map = &mut self.maps[disk];
        if slot >= map.slots {
            return false;
        }
        let (word, bit) = ((slot / 64) as usize, 1u64 << (slot % 64));
        let was_free = map.words[word] & bit == 0;
        map.words[word] |= bit;
        map.free -= u64::from(was_free);
        was_free
    }

    pub fn release(&mut self, disk: usize, slot: u64) {
        let map = &mut self.maps[disk];
        let (word, bit) = ((slot / 64) as usize, 1u64 << (slot % 64));
        assert!(map.words[word] & bit != 0, "only a taken slot is released");
        map.words[word] &= !bit;
        map.free += 1;
    }

    /// Takes a slot of the disk with the largest share of free slots.
    pub fn allocate(&mut self) -> Option<(usize, u64)> {
        let emptier = |a: &Map, b: &Map| {
            (u128::from(a.free) * u128::from(b.slots)).cmp(&(u128::from(b.free) * u128::from(a.slots)))
        };
        let disk = (0..self.maps.len())
            .filter(|d| self.maps[*d].free > 0)
            .max_by(|a, b| emptier(&self.maps[*a], &self.maps[*b]))?;
        let map = &mut self.maps[disk];
        let words = map.words.len() as u64;
        let first = map.cursor / 64;
        for step in 0..=words {
            let index = (first + step) % words;
            // In the first step the bits below the cursor are masked; the last step visits the same word without the
            // mask.
            let hidden = if step == 0 { (1u64 << (map.cursor % 64)) - 1 } else { 0 };
            let bit = u64::from((map.words[index as usize] | hidden).trailing_ones());
            let slot = index * 64 + bit;
            if bit < 64 && slot < map.slots {
                map.cursor = (slot + 1) % map.slots;
                self.take(disk, slot);
                return Some((disk, slot));
            }
        }
        unreachable!("a map with free slots has a clear bit")
    }

    /// Whether `slots` more may be reserved for guest writes.
    pub fn can_reserve(&self, slots: u64) -> bool {
        slots == 0 || self.free() >= self.reserved + self.reserve + slots
    }

    pub fn set_aside(&mut self, slots: u64) {
        self.reserved += slots;
    }

    pub fn put_back(&mut self, slots: u64) {
        self.reserved = self.reserved.checked_sub(slots).expect("only reserved slots are put back");
    }

    pub fn free(&self) -> u64 {
        self.maps.iter().map(|m| m.free).sum()
    }

    pub fn total(&self) -> u64 {
        self.maps.iter().map(|m| m.slots).sum()
    }

    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    pub fn reserve(&self) -> u64 {
        self.reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_once_and_none_twice() {
        let mut space = Space::new(&[70, 130]);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(slot) = space.allocate() {
            assert!(seen.insert(slot));
        }
        assert_eq!(seen.len(), 200);
        assert_eq!(seen.iter().filter(|(d, _)| *d == 0).count(), 70);
        space.release(1, 129);
        space.release(0, 3);
        let mut again = [space.allocate().unwrap(), space.allocate().unwrap()];
        again.sort();
        assert_eq!(again, [(0, 3), (1, 129)]);
        assert!(space.allocate().is_none());
        assert!(!space.take(0, 3) && !space.take(0, 70));
    }

    #[test]
    fn writes_leave_the_reserve() {
        let mut space = Space::new(&[100]);
        assert!(space.can_reserve(96) && !space.can_reserve(97));
        space.set_aside(96);
        assert!(!space.can_reserve(1) && space.can_reserve(0));
        space.put_back(1);
        assert!(space.can_reserve(1));
    }
}
