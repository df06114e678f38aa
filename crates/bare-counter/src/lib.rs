//! The counting guest without an operating system: it boots in a fraction of a second where Linux takes half a minute.
//!
//! It prints the same lines as `dyad-linux-counter` and writes the same disk format (`dyad-counter`), and runs on one processor with a BIOS: from the
//! first sector of its disk ([`boot`]) to a loop that counts ([`counting`]). It sleeps between interrupts of the timer and
//! of the disk, so that a guest that waits takes no time from the node. `cargo xtask guest` links it with `guest.ld`.
//!
//! It must never know how the disk is stored or replicated, and needs no device but a virtio disk and a serial line.
//!
//! **Invariants**
//! * Interrupts are enabled only while the processor sleeps ([`interrupts::sleep`]): no other code can be interrupted.
//! * `ack N` is printed only after the disk has completed a flush that began after it had completed the write of N.
#![no_std]
// Each block says why it is sound. A program without an operating system reads and writes ports and memory of devices.
#![allow(unsafe_code)]

#[cfg(feature = "boot")]
mod boot;
pub mod clock;
pub mod counting;
pub mod disk;
pub mod dma;
pub mod interrupts;
pub mod memory;
pub mod pci;
pub mod serial;
