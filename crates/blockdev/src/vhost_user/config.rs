//! How a device presents itself and behaves.

use std::time::Duration;

/// How a device presents itself and behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Serial number of the disk, as the guest reads it; the first 20 bytes count.
    pub serial: String,
    /// Number of queues offered, 1 to 64. QEMU must not ask for more (`num-queues`).
    pub queues: u16,
    pub read_only: bool,
    /// Longest wait for requests in flight when QEMU stops a ring. QEMU holds its global lock during the wait, so this
    /// also bounds the freeze of the virtual machine's control socket.
    pub drain_limit: Duration,
    /// Memory for request data, in bytes; rings wait when it is used up. One request may exceed it by 1 MiB.
    pub memory_limit: u64,
}

impl Config {
    /// The defaults: 16 queues, writable, drain limit 3 s, memory limit 32 MiB.
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
