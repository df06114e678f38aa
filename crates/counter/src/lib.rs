//! Disk format of the counting guest, and the check of its disk after a failure.
//!
//! The guest counts: it writes counter N, flushes, and only then says `ack N` on its serial line. The counters are written
//! one after the other to a ring of [`SLOTS`] blocks, one per extent, so the disk always holds the last [`SLOTS`] counters.
//! Each write is flushed before the next one starts; the newest counter therefore determines the content of the whole ring,
//! and one stale slot is a lost acknowledged write.
//!
//! This crate must never know how the disk is stored or replicated.
//!
//! **Invariants**
//! * [`decode`] never takes a damaged block for a counter: every byte is covered by the checksum.
//! * [`Survey::faults`] reports every slot that a flushed write should have reached and did not.
#![no_std]

use core::fmt;

/// Bytes in one block; every write of the guest is one block. This and [`STRIDE`] are written out although `dyad-types`
/// has both: the guest observes the product from outside and must not take its numbers from it.
pub const BLOCK: usize = 4096;
/// Number of blocks in the ring.
pub const SLOTS: u64 = 64;
/// Bytes from one slot to the next: one extent of the pool, so that each counter changes another extent.
pub const STRIDE: u64 = 64 * 1024;
/// Bytes before the first slot; the guest image's boot file system is there.
pub const DATA_OFFSET: u64 = 24 * 1024 * 1024;
/// Size of the guest disk, in bytes.
pub const DISK_BYTES: u64 = DATA_OFFSET + SLOTS * STRIDE;

const MAGIC: &[u8; 8] = b"DYADCNT1";
const CHECKSUM_AT: usize = BLOCK - 8;

/// The content of one block of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Never written: all zeros.
    Blank,
    /// A block that [`encode`] made, unchanged.
    Counter {
        /// Counts from 1.
        counter: u64,
        /// The random number of the guest's boot that wrote the block.
        boot: u64,
    },
    /// Any other content: a torn write, damage, or data of another program.
    Damaged,
}

/// The content of the whole ring.
///
/// The slot after the newest counter may be damaged: its write may never have been flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey<'a> {
    /// The newest counter on the disk; 0 if none was written.
    pub newest: u64,
    slots: &'a [Slot],
}

/// A slot whose content is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotFault {
    index: u64,
    slot: Slot,
    /// The counter that the slot must hold; 0 if the ring has not reached it yet.
    expected: u64,
}

impl fmt::Display for SlotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} holds {:?}, expected {}", self.index, self.slot, self.expected)
    }
}

impl<'a> Survey<'a> {
    /// Finds the newest counter; `slots[s]` is the content of slot `s`.
    pub fn new(slots: &'a [Slot]) -> Self {
        let counter = |slot: &Slot| match slot {
            Slot::Counter { counter, .. } => *counter,
            Slot::Blank | Slot::Damaged => 0,
        };
        Self { newest: slots.iter().map(counter).max().unwrap_or(0), slots }
    }

    /// The slots whose content is wrong, in the order of the disk.
    pub fn faults(&self) -> impl Iterator<Item = SlotFault> + use<'a> {
        let newest = self.newest;
        (0..SLOTS).zip(self.slots).filter_map(move |(index, &slot)| {
            // The counter that this slot must hold once `newest` was written; 0 if the slot was never reached.
            let expected = newest.saturating_sub((newest + SLOTS - index) % SLOTS);
            let sound = match slot {
                Slot::Counter { counter, .. } => counter == expected,
                Slot::Blank => expected == 0,
                Slot::Damaged => (newest + 1) % SLOTS == index,
            };
            (!sound).then_some(SlotFault { index, slot, expected })
        })
    }
}

/// The byte offset on the disk of the slot for `counter`.
pub fn offset(counter: u64) -> u64 {
    DATA_OFFSET + (counter % SLOTS) * STRIDE
}

/// The random number of one boot of the guest.
#[derive(Debug, Clone, Copy)]
pub struct BootNumber(pub u64);

/// The block that stores `counter`, written during the guest's boot `boot`.
pub fn encode(counter: u64, BootNumber(boot): BootNumber) -> [u8; BLOCK] {
    let fill = |index: u64| (counter ^ boot.rotate_left(17) ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut block = [0; BLOCK];
    for (index, word) in block.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&fill(index as u64).to_le_bytes());
    }
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&counter.to_le_bytes());
    block[16..24].copy_from_slice(&boot.to_le_bytes());
    let sum = checksum(&block[..CHECKSUM_AT]);
    block[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// Decodes a block. A block that differs from what [`encode`] makes is [`Slot::Damaged`].
pub fn decode(block: &[u8; BLOCK]) -> Slot {
    if block.iter().all(|byte| *byte == 0) {
        return Slot::Blank;
    }
    let (counter, boot) = (word(block, 8), word(block, 16));
    if *block == encode(counter, BootNumber(boot)) { Slot::Counter { counter, boot } } else { Slot::Damaged }
}

/// FNV-1a, 64 bits. The guest uses its own checksum, which shares no code with the pool's.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn word(block: &[u8; BLOCK], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn ring(newest: u64) -> Vec<Slot> {
        let mut slots = vec![Slot::Blank; SLOTS as usize];
        for counter in 1..=newest {
            slots[(counter % SLOTS) as usize] = Slot::Counter { counter, boot: 7 };
        }
        slots
    }

    #[test]
    fn a_block_with_one_changed_byte_is_damaged() {
        let block = encode(1234, BootNumber(99));
        assert_eq!(decode(&block), Slot::Counter { counter: 1234, boot: 99 });
        for at in 0..BLOCK {
            let mut damaged = block;
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), Slot::Damaged, "byte {at}");
        }
    }

    #[test]
    fn a_ring_without_a_failure_has_no_faults() {
        for newest in 0..3 * SLOTS {
            let ring = ring(newest);
            let survey = Survey::new(&ring);
            assert_eq!((survey.newest, survey.faults().count()), (newest, 0));
        }
    }

    #[test]
    fn one_stale_slot_is_a_fault_wherever_it_is() {
        let newest = 2 * SLOTS + 5;
        for back in 1..SLOTS {
            let mut slots = ring(newest);
            let counter = newest - back;
            slots[(counter % SLOTS) as usize] = Slot::Counter { counter: counter - SLOTS, boot: 7 };
            assert_eq!(Survey::new(&slots).faults().count(), 1, "{back} behind the newest");
        }
    }

    #[test]
    fn only_the_slot_after_the_newest_counter_may_be_damaged() {
        let newest = SLOTS + 9;
        for index in 0..SLOTS {
            let mut slots = ring(newest);
            if index == newest % SLOTS {
                continue;
            }
            slots[index as usize] = Slot::Damaged;
            let torn_is_next = index == (newest + 1) % SLOTS;
            assert_eq!(Survey::new(&slots).faults().next().is_none(), torn_is_next, "{index}");
        }
    }
}
