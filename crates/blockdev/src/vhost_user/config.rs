//! How a device presents itself and behaves.

use std::time::Duration;

/// How a device presents itself and behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the guest reads as the disk's serial number; the first 20 bytes count.
    pub serial: String,
    /// Number of queues offered, 1 to 64. QEMU must not ask for more (`num-queues`).
    pub queues: u16,
    /// The guest may only read.
    pub read_only: bool,
    /// How long QEMU may have to wait for requests in flight when it stops a ring. QEMU holds its global
    /// lock meanwhile, so this is also the longest freeze of the virtual machine's control socket.
    pub drain_limit: Duration,
    /// Memory for request data in bytes, before a ring has to wait. It may be exceeded by one request's 1 MiB.
    pub memory_limit: u64,
}

impl Config {
    /// The usual device with this serial number: 16 queues, writable, 3 s to drain, 32 MiB.
    pub fn new(serial: impl Into<String>) -> Self {
        Self {
            serial: serial.into(),
            queues: 16,
            read_only: false,
            drain_limit: Duration::from_secs(3),
            memory_limit: 32 << 20,
        }
    }
}
