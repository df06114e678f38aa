//! Memory that lives as long as the program, and the mapping of device memory.

use core::cell::UnsafeCell;

/// Bytes of the smallest page, and the alignment of memory that a device uses.
pub const PAGE_BYTES: usize = 4096;
/// Entries of a page table.
const ENTRIES: usize = 512;
/// Present and writable; one page of 2 MiB.
const TABLE_FLAGS: u64 = 0x3;
const LARGE_PAGE_FLAGS: u64 = 0x83;
const LARGE_PAGE_SHIFT: u32 = 21;
/// What `boot.s` has mapped: the first four GiB.
const MAPPED_BYTES: u64 = 4 << 30;
/// Number of page tables for device memory above [`MAPPED_BYTES`]. A region of at most 1 GiB takes two or three.
const SPARE_TABLES: usize = 8;

/// A variable that the program's only thread changes.
pub struct StaticCell<T>(UnsafeCell<T>);

// SAFETY: the program has one thread, and no interrupt handler uses a variable.
unsafe impl<T> Sync for StaticCell<T> {}

impl<T> StaticCell<T> {
    /// The variable with its first value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The address of the variable.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct PageTable([u64; ENTRIES]);

static TABLES: StaticCell<([PageTable; SPARE_TABLES], usize)> =
    StaticCell::new(([PageTable([0; ENTRIES]); SPARE_TABLES], 0));

/// Maps this range of physical memory at its own addresses.
///
/// # Panics
/// There is no page table left.
pub fn map(address: u64, bytes: usize) {
    if address < MAPPED_BYTES {
        return;
    }
    let last = (address + bytes as u64 - 1) >> LARGE_PAGE_SHIFT;
    for page in address >> LARGE_PAGE_SHIFT..=last {
        map_large_page(page);
    }
}

fn map_large_page(page: u64) {
    let index = |level: u32| (page >> (9 * level)) as usize % ENTRIES;
    let top: u64;
    // SAFETY: the register holds the address of the page tables of `boot.s`; tables are at their physical addresses, and the
    // program has no reference to one of them. An entry that was absent needs no flush.
    unsafe {
        core::arch::asm!("mov {}, cr3", out(reg) top, options(nomem, nostack, preserves_flags));
        let upper = next_table(top as *mut PageTable, index(2));
        let lower = next_table(upper, index(1));
        (*lower).0[index(0)] = page << LARGE_PAGE_SHIFT | LARGE_PAGE_FLAGS;
    }
}

/// The table to which this entry points; it gets a spare one if it has none.
///
/// # Safety
/// `table` is a page table in use, and no reference to it exists.
unsafe fn next_table(table: *mut PageTable, index: usize) -> *mut PageTable {
    // SAFETY: the caller guarantees `table`. No other code uses the spare tables.
    unsafe {
        let entry = &mut (*table).0[index];
        if *entry == 0 {
            let (spare, used) = &mut *TABLES.get();
            *entry = &raw mut spare[*used] as u64 | TABLE_FLAGS;
            *used += 1;
        }
        (*entry & !(PAGE_BYTES as u64 - 1)) as *mut PageTable
    }
}
