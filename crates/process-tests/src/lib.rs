//! A pair of real storage daemons on one machine: two network namespaces, files as disks, TLS between the daemons, and
//! a disk driver of this crate in place of QEMU. Process tests and benchmarks run on it; the namespaces need root.
//!
//! It uses a daemon only from outside: by its command line, its control socket and its device sockets. Faults come from
//! outside too: signals, resource limits, cgroups, cables, packet filters, frozen file systems, damaged bytes of a pool disk, and
//! files of the state folder.
//!
//! **Invariants**
//! * Dropping [`core_daemons::CoreDaemons`] ends the daemons and removes the namespaces; the daemons also end when the
//!   test program is killed.
//! * [`disk_driver::DiskDriver`] returns `Ok` for a write or flush only when the daemon answered it with success.

pub mod cgroup;
pub mod core_daemons;
pub mod disk_driver;
pub mod freezable_folder;
pub mod limits;
pub mod namespaces;
pub mod pool_file;
