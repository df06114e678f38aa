//! [`Worker`]: the thread of one device. It waits for messages of QEMU, kicks of the driver and completions of the
//! backend, and passes them to the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::Backend;
use crate::vhost_user::config::Config;
use crate::vhost_user::device::{Device, KICK, epoll_add};
use crate::vhost_user::request::RingError;
use crate::vhost_user::shared::Shared;
use crate::vhost_user::vring::Vring;

/// Data of the epoll events of the listening socket.
const LISTENER: u64 = 0;
/// Data of the epoll events of the connection.
const CONNECTION: u64 = 1;
/// Data of the epoll events of the mailbox.
const MAILBOX: u64 = 2;

/// After a violation of the protocol no connection is accepted for this time. It limits the processor time that a guest
/// with invalid rings can use.
const RING_ERROR_DELAY: Duration = Duration::from_secs(1);

/// After a failure to accept a connection, usually because no file descriptors are left, none is accepted for this time. The
/// connection still waits in the listening socket, so without a delay the thread would try again at full speed.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The state of the thread. The crate `vhost` requires that the device is in a mutex, which its message handler shares.
/// Only this thread uses both, so it never waits for the mutex.
pub(crate) struct Worker {
    listener: UnixListener,
    epoll: Arc<OwnedFd>,
    device: Arc<Mutex<Device>>,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Time at which the listener is watched again after a violation of the protocol or a failure to accept.
    listen_at: Option<Instant>,
}

/// The connection of QEMU.
struct Connection {
    handler: BackendReqHandler<Mutex<Device>>,
    /// A second descriptor of the socket, for epoll: the handler does not give access to its own.
    stream: UnixStream,
}

/// The reason for the end of a connection.
#[derive(Debug, thiserror::Error)]
enum ConnectionEnd {
    #[error("QEMU closed the connection")]
    Gone,
    #[error("a message was refused")]
    Message(#[source] Error),
    #[error("a ring is broken")]
    Ring(#[source] RingError),
}

impl From<Error> for ConnectionEnd {
    fn from(error: Error) -> Self {
        match error {
            Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_) | Error::SocketError(_) => Self::Gone,
            other => Self::Message(other),
        }
    }
}

impl Worker {
    pub fn new(
        listener: UnixListener,
        backend: Arc<dyn Backend>,
        config: &Config,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        epoll_add(&epoll, &listener, LISTENER)?;
        epoll_add(&epoll, &*shared.mailbox, MAILBOX)?;
        let device = Device::new(backend, config, epoll.clone(), shared.clone());
        Ok(Self { listener, epoll, device: Arc::new(Mutex::new(device)), shared, connection: None, listen_at: None })
    }

    /// Serves until the handle stops the device, or waiting for events fails.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        while !self.shared.stop.load(Ordering::SeqCst) {
            events.clear();
            let limit = self.listen_at.map(|at| at.saturating_duration_since(Instant::now()));
            let limit = limit.and_then(|left| Timespec::try_from(left).ok());
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&*self.epoll, space, limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "a device cannot wait for events and stops");
                    break;
                }
            }
            if self.listen_at.is_some_and(|at| at <= Instant::now()) {
                self.listen_at = None;
                self.watch_listener();
            }
            for event in &events {
                if let Err(reason) = self.handle_event(event.data.u64()) {
                    self.close(&reason);
                    break; // the other events may belong to the closed connection
                }
            }
            let in_flight = self.device().in_flight();
            self.shared.counters.in_flight.store(in_flight, Ordering::Relaxed);
        }
        if self.connection.is_some() {
            self.close(&ConnectionEnd::Gone);
        }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one epoll event, given by its data. An error ends the connection.
    fn handle_event(&mut self, event: u64) -> Result<(), ConnectionEnd> {
        match event {
            LISTENER => {
                self.accept();
                Ok(())
            }
            CONNECTION => match &mut self.connection {
                Some(connection) => Ok(connection.handler.handle_request()?),
                None => Ok(()),
            },
            MAILBOX => self.device().process_completions().map_err(ConnectionEnd::Ring),
            kick => {
                let ring = (kick - KICK) as usize;
                self.device().on_kick(ring).map_err(ConnectionEnd::Ring)
            }
        }
    }

    /// Accepts a connection of QEMU. Only one connection is served at a time: the next one waits in the listening
    /// socket.
    fn accept(&mut self) {
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(false)?;
            let for_handler = stream.try_clone()?;
            let for_handle = stream.try_clone()?;
            epoll_add(&self.epoll, &stream, CONNECTION)?;
            Ok((stream, for_handler, for_handle))
        });
        let (stream, for_handler, for_handle) = match accepted {
            Ok(streams) => streams,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "a connection of QEMU could not be accepted");
                let _ = epoll::delete(&*self.epoll, &self.listener);
                self.listen_at = Some(Instant::now() + ACCEPT_RETRY_DELAY);
                return;
            }
        };
        let _ = epoll::delete(&*self.epoll, &self.listener);
        *self.shared_connection() = Some(for_handle);
        self.shared.counters.connected.store(true, Ordering::Relaxed);
        self.connection =
            Some(Connection { handler: BackendReqHandler::from_stream(for_handler, self.device.clone()), stream });
    }

    /// The connection as the handle sees it.
    fn shared_connection(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection and resets its state. The listener is watched again at once, or after [`RING_ERROR_DELAY`]
    /// if the protocol was violated.
    fn close(&mut self, reason: &ConnectionEnd) {
        if let Some(connection) = self.connection.take() {
            let _ = epoll::delete(&*self.epoll, &connection.stream);
            // Other descriptors of the socket may still be open, but QEMU must see the end of the connection now.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        }
        *self.shared_connection() = None;
        let mut device = self.device();
        if let ConnectionEnd::Ring(_) = reason {
            device.rings.iter().for_each(Vring::signal_error);
        }
        device.disconnect();
        drop(device);
        self.shared.counters.connected.store(false, Ordering::Relaxed);
        if let ConnectionEnd::Gone = reason {
            self.watch_listener();
            return;
        }
        self.shared.counters.violations.fetch_add(1, Ordering::Relaxed);
        let cause = std::error::Error::source(reason).map(ToString::to_string);
        tracing::warn!(ending = %reason, cause, "the connection with QEMU was ended");
        self.listen_at = Some(Instant::now() + RING_ERROR_DELAY);
    }

    /// Lets epoll watch the listening socket.
    fn watch_listener(&self) {
        // The listener is not registered at this point, so only a lack of kernel memory can make this fail.
        if let Err(error) = epoll_add(&self.epoll, self.listener_fd(), LISTENER) {
            tracing::error!(%error, "a device cannot listen any more");
        }
    }

    fn listener_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailbox;
    use crate::{ReplyTo, Request};
    use std::sync::atomic::AtomicBool;

    struct NoVolume;

    impl Backend for NoVolume {
        fn submit(&self, _: Request, _: ReplyTo) {
            unreachable!("nothing is connected")
        }

        fn size(&self) -> u64 {
            4096
        }
    }

    #[test]
    fn a_failed_accept_is_tried_again_after_a_delay_and_not_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("disk.sock")).unwrap();
        let shared = Arc::new(Shared {
            mailbox: Arc::new(Mailbox::new().unwrap()),
            counters: Arc::default(),
            stop: AtomicBool::new(false),
            connection: Mutex::new(None),
        });
        let mut worker = Worker::new(listener, Arc::new(NoVolume), &Config::new("disk"), shared).unwrap();
        // A listening socket that was shut down fails each blocking accept, and epoll reports it for ever.
        rustix::net::shutdown(&worker.listener, rustix::net::Shutdown::Both).unwrap();
        let reported = |worker: &Worker| {
            let mut events = Vec::with_capacity(4);
            let space = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&*worker.epoll, space, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
            !events.is_empty()
        };
        assert!(reported(&worker));
        worker.accept();
        assert!(!reported(&worker), "the thread would accept again at once");
        let again = worker.listen_at.expect("it is tried again");
        assert!(again <= Instant::now() + ACCEPT_RETRY_DELAY && worker.connection.is_none());
        worker.watch_listener();
        assert!(reported(&worker));
    }
}
