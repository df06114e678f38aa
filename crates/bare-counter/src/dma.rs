//! The memory that the disk's device reads and writes. It is at its physical address.

use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::memory::{self, PAGE_BYTES, StaticCell};

/// Number of pages for the queue of the disk, which never returns them.
const PAGES: usize = 8;

#[repr(C, align(4096))]
struct Pages([[u8; PAGE_BYTES]; PAGES]);

static POOL: StaticCell<(Pages, usize)> = StaticCell::new((Pages([[0; PAGE_BYTES]; PAGES]), 0));

/// The services that the library needs of a program.
#[derive(Debug)]
pub struct Services;

// SAFETY: each page is given out once and is zero. Device memory is mapped before its address is returned.
unsafe impl Hal for Services {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the program has one thread, and this reference ends with the function.
        let (pool, used) = unsafe { &mut *POOL.get() };
        let first = NonNull::from(&mut pool.0[*used..*used + pages][0]).cast();
        *used += pages;
        (first.as_ptr() as PhysAddr, first)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, bytes: usize) -> NonNull<u8> {
        memory::map(address, bytes);
        NonNull::new(address as *mut u8).expect("no device is at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
