//! Interrupts of the timer and of the disk, by the two interrupt controllers of the first PCs (8259).
//!
//! The handlers only end the sleep. The controllers end each interrupt by themselves when it is delivered (automatic EOI), so
//! nothing needs to be written to them: in a VM each access to a port is expensive.

use core::arch::global_asm;

use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::structures::idt::InterruptDescriptorTable;

use crate::memory::StaticCell;

/// Number of the first controller's first vector: the processor uses those below for exceptions.
const FIRST_VECTOR: u8 = 32;
/// Frequency of the timer (8254), in Hz.
pub const TIMER_HZ: u32 = 1_193_182;
/// Interrupts of the timer per second: a divisor of 16 bits allows no fewer than 19.
const WAKE_UPS_PER_SECOND: u32 = 20;

// `wake_up` clears the interrupt flag (bit 9) among the flags that the processor has pushed, so interrupts are disabled when
// `sleep_once` goes on, and an interrupt that the device still asserts does not come again at once. An interrupt between `sti` and
// `hlt` would then be the last one, with the processor asleep: `wake_up` steps over a `hlt` that was not executed. No processor
// delivers one there, but a VM can, if its hypervisor runs in an emulated machine. No register changes.
global_asm!(
    ".globl sleep_once",
    "sleep_once:",
    "sti",
    "sleep_instruction:",
    "hlt",
    "cli",
    "ret",
    ".globl wake_up",
    "wake_up:",
    "push rax",
    "lea rax, [rip + sleep_instruction]",
    "cmp qword ptr [rsp + 8], rax",
    "jne 2f",
    "inc qword ptr [rsp + 8]",
    "2:",
    "pop rax",
    "and qword ptr [rsp + 16], -0x201",
    "iretq",
    ".globl fail",
    "fail:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call exception",
);

unsafe extern "C" {
    fn sleep_once();
    fn wake_up();
    fn fail();
}

static TABLE: StaticCell<InterruptDescriptorTable> = StaticCell::new(InterruptDescriptorTable::new());

/// Sets the handlers, and starts the timer.
pub fn enable() {
    // SAFETY: called once, before the table is in use.
    let table = unsafe { &mut *TABLE.get() };
    let (fail, wake_up) = (VirtAddr::from_ptr(fail as *const ()), VirtAddr::from_ptr(wake_up as *const ()));
    // SAFETY: both handlers end with what the processor expects; exceptions end the program whether or not the processor
    // pushes an error code.
    unsafe {
        table.divide_error.set_handler_addr(fail);
        table.invalid_opcode.set_handler_addr(fail);
        table.double_fault.set_handler_addr(fail);
        table.stack_segment_fault.set_handler_addr(fail);
        table.general_protection_fault.set_handler_addr(fail);
        table.page_fault.set_handler_addr(fail);
        for vector in FIRST_VECTOR..FIRST_VECTOR + 16 {
            table[vector].set_handler_addr(wake_up);
        }
        table.load_unsafe();
    }
    enable_controllers();
    start_timer();
}

fn enable_controllers() {
    // Initialisation words of the 8259: begin, first vector, the other controller's line, 8086 mode with automatic EOI; then
    // the mask that lets all interrupts through.
    for (command, vector, cascade) in [(0x20, FIRST_VECTOR, 4), (0xa0, FIRST_VECTOR + 8, 2)] {
        write_port(command, 0x11);
        for word in [vector, cascade, 3, 0] {
            write_port(command + 1, word);
        }
    }
}

fn start_timer() {
    let divisor = (TIMER_HZ / WAKE_UPS_PER_SECOND) as u16;
    write_port(0x43, 0x34);
    for byte in divisor.to_le_bytes() {
        write_port(0x40, byte);
    }
}

/// Sleeps until an interrupt. An interrupt that came since interrupts were last enabled ends the sleep at once.
pub fn sleep() {
    // SAFETY: the function changes no register, and the handlers restore what they use.
    unsafe { sleep_once() };
}

/// Stops the processor; interrupts are disabled.
pub fn halt() {
    x86_64::instructions::hlt();
}

/// Writes to a port of a device that the program alone uses.
pub fn write_port(port: u16, value: u8) {
    // SAFETY: these ports belong to devices that cannot change the program's memory.
    unsafe { Port::new(port).write(value) }
}

/// Reads a port of such a device.
pub fn read_port(port: u16) -> u8 {
    // SAFETY: as for `write_port`.
    unsafe { Port::new(port).read() }
}
