//! A pair of real storage daemons on one machine: two network namespaces, real files, real TLS, and a block driver of
//! this crate
//! in place of QEMU. The process tests and the benchmarks run on it; it needs root for the namespaces.
//!
//! It must never reach into a daemon: it uses the command line, the local socket and the device socket that `dyad-node`
//! and QEMU use.
//!
//! **Invariants**
//! * Dropping [`cores::Cores`] removes namespaces and daemons; the daemons also end when the test program is killed.
//! * [`device::Device`] reports a write or flush as done only when the daemon answered it with success.

pub mod cgroup;
pub mod cores;
pub mod device;
pub mod limits;
pub mod namespaces;
