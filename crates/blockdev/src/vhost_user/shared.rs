//! State that the handle of a device and the device's thread share.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::vhost_user::mailbox::Mailbox;

/// Figures the device's thread keeps for everyone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connected: AtomicBool,
    pub served: AtomicU64,
    pub in_flight: AtomicU64,
    pub violations: AtomicU64,
}

impl Counters {
    pub fn add_served(&self, count: u64) {
        self.served.fetch_add(count, Ordering::Relaxed);
    }
}

/// What the handle and the device's thread share.
pub(crate) struct Shared {
    pub mailbox: Arc<Mailbox>,
    pub counters: Arc<Counters>,
    pub stop: AtomicBool,
    /// The connection there is, to be shut down from outside: the thread may be waiting for a message.
    pub connection: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// End the connection there is. The device's thread sees its end and cleans up.
    pub fn hang_up(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = connection.as_ref() {
            // Already ended is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
