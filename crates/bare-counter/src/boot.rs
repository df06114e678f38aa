//! The way from the first sector of the disk to [`start`], and what a program without an operating system must bring along.
//!
//! The BIOS loads the first sector to address 0x7c00 and jumps there. The sector loads the rest of the program behind
//! itself, and `boot.s` changes to 64-bit mode with memory mapped at its physical addresses.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use crate::counting;
use crate::interrupts;
use crate::serial::SerialLine;

global_asm!(include_str!("boot.s"), options(att_syntax));

/// The first Rust function. `boot.s` calls it once, with interrupts disabled.
#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    let mut line = SerialLine::open();
    let error = counting::count(&mut line);
    line.say(format_args!("error {error}"));
    halt();
}

/// Prints what happened: the program has no other way to report it.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    SerialLine::open().say(format_args!("error {info}"));
    halt();
}

/// Called by `boot.s` when the processor meets an exception, with the words that it has pushed.
#[unsafe(no_mangle)]
extern "C" fn exception(pushed: &[u64; 3]) -> ! {
    SerialLine::open().say(format_args!("error processor exception, stack {pushed:x?}"));
    halt();
}

fn halt() -> ! {
    loop {
        interrupts::halt();
    }
}

/// `memcpy` of C, which the compiler calls.
///
/// # Safety
/// As in C: both ranges of `count` bytes are valid and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller guarantees the ranges.
    unsafe { copy_upwards(to, from, count) }
}

/// Copies from the first byte to the last, and returns `to`.
///
/// # Safety
/// Both ranges of `count` bytes are valid, and `to` is not within the source.
unsafe fn copy_upwards(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller guarantees the ranges. The direction flag is clear, as the calling convention demands.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// `memmove` of C.
///
/// # Safety
/// As in C: both ranges of `count` bytes are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if count == 0 || (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: a copy upwards is right, since `to` is not within the source.
        return unsafe { copy_upwards(to, from, count) };
    }
    // SAFETY: the caller guarantees the ranges. The copy begins with the last byte and restores the direction flag.
    unsafe {
        let (last_to, last_from) = (to.add(count - 1), from.add(count - 1));
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _, inout("rsi") last_from => _, options(nostack));
    }
    to
}

/// `memset` of C.
///
/// # Safety
/// As in C: the range of `count` bytes is valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller guarantees the range. The direction flag is clear.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8, options(nostack, preserves_flags));
    }
    to
}

/// `memcmp` of C.
///
/// # Safety
/// As in C: both ranges of `count` bytes are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller guarantees the ranges. Volatile, so that the compiler does not make a call of memcmp of the loop.
        let (a, b) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// `bcmp` of C, which the compiler calls for comparisons that need no order.
///
/// # Safety
/// As in C: both ranges of `count` bytes are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller guarantees the ranges.
    unsafe { memcmp(left, right, count) }
}

/// A symbol to which the compiled standard library refers. It is never called: a panic ends the program.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
