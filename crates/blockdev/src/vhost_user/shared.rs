//! State that the handle of a device and the device's thread share.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mailbox::Mailbox;

/// Counters that the device's thread updates and a handle reads.
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

pub(crate) struct Shared {
    pub mailbox: Arc<Mailbox>,
    pub counters: Arc<Counters>,
    pub stop: AtomicBool,
    /// The current connection. The handle shuts it down while the thread may wait for a message on it.
    pub connection: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// Ends the current connection. The device's thread then releases its state.
    pub fn hang_up(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = connection.as_ref() {
            // An error means that the connection has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
