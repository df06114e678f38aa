//! [`Config`]: the settings of one device.

use std::time::Duration;

/// The settings of one device, given to [`Server::start`](crate::Server::start).
#[derive(Debug, Clone)]
pub struct Config {
    /// Serial number of the disk that the guest reads; bytes after the 20th are cut off.
    pub serial: String,
    /// Number of queues that the device offers, 1 to 64. QEMU must not use more (`num-queues`).
    pub queues: u16,
    /// Whether requests that would change the volume get an I/O error.
    pub read_only: bool,
    /// Longest wait for requests in flight when QEMU stops a ring. QEMU holds its global lock during the wait, so its
    /// control socket (QMP) does not answer for as long.
    pub drain_limit: Duration,
    /// Limit of the memory for request data, in bytes; rings wait while it is used up. The last request let in may
    /// exceed it by 1 MiB and two blocks.
    pub memory_limit: u64,
}

impl Config {
    /// Settings with 16 queues, writable, a drain limit of 3 s and a memory limit of 32 MiB.
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
