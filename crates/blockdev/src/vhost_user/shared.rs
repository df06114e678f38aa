//! [`Shared`]: the state that the handle of a device and the device's thread share.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mailbox::Mailbox;

/// State and counters that the device's thread updates and the handle reads. [`Status`](super::Status) describes them.
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

/// The state that the handle of a device and the device's thread share.
pub(crate) struct Shared {
    pub mailbox: Arc<Mailbox>,
    pub counters: Arc<Counters>,
    /// Set by the handle: the thread shall end.
    pub stop: AtomicBool,
    /// The connection of QEMU. The handle can shut it down even while the thread waits for the rest of a message.
    pub connection: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// Shuts the connection down. The device's thread then resets the state of the connection.
    pub fn close_connection(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = connection.as_ref() {
            // An error means that the connection has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
