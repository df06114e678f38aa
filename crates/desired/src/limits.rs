//! Every bound of the document, with its unit.

/// Version of the document's shape. A document of a newer version is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// One mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;

/// Smallest volume, in bytes.
pub const VOLUME_MIN: u64 = MIB;
/// Largest volume, in bytes (64 TiB).
pub const VOLUME_MAX: u64 = 64 << 40;
/// Most volumes in a pair.
pub const VOLUMES: usize = 1024;

/// Most VMs in a pair.
pub const VMS: usize = 512;
/// Most virtual CPUs of one VM.
pub const CPUS_MAX: u32 = 128;
/// Least memory of one VM, in MiB.
pub const MEMORY_MIN_MIB: u32 = 32;
/// Most memory of one VM, in MiB (4 TiB).
pub const MEMORY_MAX_MIB: u32 = 4 << 20;
/// What one VM takes beside its own memory (QEMU itself, its queues and buffers), in MiB.
pub const VM_OVERHEAD_MIB: u64 = 64;
/// Most disks of one VM.
pub const DISKS: usize = 8;
/// Most queues of one disk: what the device offers and the most a VM asks for, one for each of its CPUs.
pub const DISK_QUEUES: u16 = 8;
/// Priorities run from 0 (started last) to this (started first).
pub const PRIORITY_MAX: u8 = 100;

/// Memory a node keeps for itself (kernel, `dyad-core`, `dyad-node`), in MiB; VMs may use the rest.
pub const NODE_RESERVE_MIB: u64 = 400;

/// Longest name, in bytes: a name becomes part of socket paths, which the kernel limits to 107 bytes.
pub const NAME_MAX: usize = 32;
/// Most addresses noted per node.
pub const ADDRESSES: usize = 16;
/// Longest noted text that is not a name (an address, a password hash), in bytes.
pub const TEXT_MAX: usize = 256;

/// Shortest and longest time a guest gets to shut down before it is stopped hard, in seconds.
pub const GRACE_S: std::ops::RangeInclusive<u32> = 1..=3600;
