//! Free slots of all disks, in memory. Built from the indexes when the pool is opened.

/// The slots of one disk, free and taken.
struct DiskSlots {
    /// One bit per slot: set = taken.
    words: Vec<u64>,
    slots: u64,
    /// Number of clear bits in `words` below `slots`.
    free: u64,
    /// The slot after the slot that was allocated last. Allocation searches upwards from here and wraps, so that
    /// extents written one after another are neighbours on the disk.
    cursor: u64,
}

/// The free slots of all disks of the pool, and the reservations of free slots.
pub(crate) struct FreeSlots {
    disks: Vec<DiskSlots>,
    /// Number of free slots reserved for extents in the overlays that have no slot yet.
    reserved: u64,
    /// Number of free slots that guest writes never take.
    held_back: u64,
}

impl FreeSlots {
    /// All slots free. `slots` is the number of slots of each disk; 1 % of all slots, at least 4 and at most 4096, are
    /// held back.
    pub fn new(slots: &[u64]) -> Self {
        let map = |slots: &u64| DiskSlots {
            words: vec![0; slots.div_ceil(64) as usize],
            slots: *slots,
            free: *slots,
            cursor: 0,
        };
        let total: u64 = slots.iter().sum();
        Self { disks: slots.iter().map(map).collect(), reserved: 0, held_back: (total / 100).clamp(4, 4096) }
    }

    /// Marks a slot as taken; false if the slot does not exist or is taken already.
    pub fn take(&mut self, disk: usize, slot: u64) -> bool {
        let map = &mut self.disks[disk];
        if slot >= map.slots {
            return false;
        }
        let (word, bit) = ((slot / 64) as usize, 1u64 << (slot % 64));
        let was_free = map.words[word] & bit == 0;
        map.words[word] |= bit;
        map.free -= u64::from(was_free);
        was_free
    }

    /// Marks a taken slot as free.
    pub fn release(&mut self, disk: usize, slot: u64) {
        let map = &mut self.disks[disk];
        let (word, bit) = ((slot / 64) as usize, 1u64 << (slot % 64));
        assert!(map.words[word] & bit != 0, "only a taken slot is released");
        map.words[word] &= !bit;
        map.free += 1;
    }

    /// Takes a free slot of the disk with the largest share of free slots; `None` if no slot is free.
    pub fn allocate(&mut self) -> Option<(usize, u64)> {
        let emptier = |a: &DiskSlots, b: &DiskSlots| {
            (u128::from(a.free) * u128::from(b.slots)).cmp(&(u128::from(b.free) * u128::from(a.slots)))
        };
        let disk = (0..self.disks.len())
            .filter(|d| self.disks[*d].free > 0)
            .max_by(|a, b| emptier(&self.disks[*a], &self.disks[*b]))?;
        let map = &mut self.disks[disk];
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

    /// Whether `slots` more slots may be reserved for guest writes.
    pub fn can_reserve(&self, slots: u64) -> bool {
        slots == 0 || self.free() >= self.reserved + self.held_back + slots
    }

    /// Whether `slots` more slots may be reserved, those included that are held back from guest writes.
    pub fn can_reserve_all(&self, slots: u64) -> bool {
        slots == 0 || self.free() >= self.reserved + slots
    }

    /// Reserves slots for extents in the overlay.
    pub fn reserve(&mut self, slots: u64) {
        self.reserved += slots;
    }

    /// Ends reservations: the extents got their slots, or do not need them any more.
    pub fn release_reservation(&mut self, slots: u64) {
        self.reserved = self.reserved.checked_sub(slots).expect("only reserved slots are released");
    }

    /// Number of free slots, reserved ones included.
    pub fn free(&self) -> u64 {
        self.disks.iter().map(|m| m.free).sum()
    }

    pub fn total(&self) -> u64 {
        self.disks.iter().map(|m| m.slots).sum()
    }

    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    pub fn held_back(&self) -> u64 {
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_allocated_once_and_again_after_its_release() {
        let mut space = FreeSlots::new(&[70, 130]);
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
    fn reservations_leave_the_slots_that_are_held_back() {
        let mut space = FreeSlots::new(&[100]);
        assert!(space.can_reserve(96) && !space.can_reserve(97));
        assert!(space.can_reserve_all(100) && !space.can_reserve_all(101));
        space.reserve(96);
        assert!(!space.can_reserve(1) && space.can_reserve(0));
        space.release_reservation(1);
        assert!(space.can_reserve(1));
    }
}
