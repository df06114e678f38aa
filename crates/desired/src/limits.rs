//! All limits of the document, with their units.

/// Version of the document's structure. A document of a newer version is refused.
pub const FORMAT_VERSION: u32 = 1;

pub use dyad_types::MIB;

/// Smallest volume, in bytes.
pub const VOLUME_MIN: u64 = MIB;
/// Largest volume, in bytes (64 TiB).
pub const VOLUME_MAX: u64 = 64 << 40;
/// Maximum number of volumes in a pair.
pub const VOLUMES_MAX: usize = 1024;

/// Maximum number of VMs in a pair.
pub const VMS_MAX: usize = 512;
/// Maximum number of virtual CPUs of one VM.
pub const CPUS_MAX: u32 = 128;
/// Minimum memory of one VM, in MiB.
pub const MEMORY_MIN_MIB: u32 = 32;
/// Maximum memory of one VM, in MiB (4 TiB).
pub const MEMORY_MAX_MIB: u32 = 4 << 20;
/// Memory in MiB that one VM needs beside its guest's memory: QEMU itself, its queues and its buffers.
pub const VM_OVERHEAD_MIB: u64 = 64;
/// Maximum number of disks of one VM.
pub const DISKS_MAX: usize = 8;
/// Maximum number of vhost-user queues of one disk. A VM has one queue for each of its virtual CPUs, up to this number.
pub const DISK_QUEUES: u16 = 8;
/// Highest priority (started first); the lowest is 0 (started last).
pub const PRIORITY_MAX: u8 = 100;

/// Memory in MiB that each node keeps for the kernel, `dyad-core` and `dyad-node`; VMs may use the rest.
pub const NODE_RESERVE_MIB: u64 = 400;

/// Maximum length of a name, in bytes: names are parts of socket paths, which the kernel limits to 107 bytes.
pub const NAME_MAX: usize = 32;
/// Maximum number of addresses stored for a node.
pub const ADDRESSES_MAX: usize = 16;
/// Maximum length of a text that is not a name (an address, a password hash), in bytes.
pub const TEXT_MAX: usize = 256;

/// Range of the time that a guest gets to shut down before it is killed, in seconds.
pub const GRACE_PERIOD_S: std::ops::RangeInclusive<u32> = 1..=3600;
