//! The thread of one device: waits for QEMU, for kicks and for completions, and lets the device act.

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

const LISTENER: u64 = 0;
const CONNECTION: u64 = 1;
const MAILBOX: u64 = 2;

/// Time without new connections after a violation of the protocol. It bounds the processor time that a guest with
/// invalid rings can use.
const RING_ERROR_DELAY: Duration = Duration::from_secs(1);

/// The thread's state. The device sits behind a mutex because the protocol crate wants to share it with
/// its handler; both are used by this thread only, so it is never contended.
pub(crate) struct Worker {
    listener: UnixListener,
    epoll: Arc<OwnedFd>,
    device: Arc<Mutex<Device>>,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// When the listener is watched again.
    listen_at: Option<Instant>,
}

struct Connection {
    handler: BackendReqHandler<Mutex<Device>>,
    /// A second descriptor for epoll: the handler does not give out its own.
    stream: UnixStream,
}

/// The cause of the end of a connection.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("QEMU closed the connection")]
    Gone,
    #[error("a message was refused")]
    Message(#[source] Error),
    #[error("a ring is broken")]
    Ring(#[source] RingError),
}

impl From<Error> for Ending {
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

    /// Serve until the handle says stop.
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
                if let Err(ending) = self.handle(event.data.u64()) {
                    self.close(&ending);
                    break; // the other events may belong to the closed connection
                }
            }
            let in_flight = self.device().in_flight();
            self.shared.counters.in_flight.store(in_flight, Ordering::Relaxed);
        }
        if self.connection.is_some() {
            self.close(&Ending::Gone);
        }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&mut self, event: u64) -> Result<(), Ending> {
        match event {
            LISTENER => {
                self.accept();
                Ok(())
            }
            CONNECTION => match &mut self.connection {
                Some(connection) => Ok(connection.handler.handle_request()?),
                None => Ok(()),
            },
            MAILBOX => self.device().settle().map_err(Ending::Ring),
            kick => {
                let ring = (kick - KICK) as usize;
                self.device().kicked(ring).map_err(Ending::Ring)
            }
        }
    }

    /// Accepts a connection of QEMU. There is one connection at a time: the next one waits in the listener.
    fn accept(&mut self) {
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(false)?;
            let ours = stream.try_clone()?;
            let theirs = stream.try_clone()?;
            epoll_add(&self.epoll, &stream, CONNECTION)?;
            Ok((stream, ours, theirs))
        });
        let (stream, ours, theirs) = match accepted {
            Ok(streams) => streams,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "a connection of QEMU could not be accepted");
                return;
            }
        };
        let _ = epoll::delete(&*self.epoll, &self.listener);
        *self.connection_slot() = Some(theirs);
        self.shared.counters.connected.store(true, Ordering::Relaxed);
        self.connection =
            Some(Connection { handler: BackendReqHandler::from_stream(ours, self.device.clone()), stream });
    }

    fn connection_slot(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&mut self, ending: &Ending) {
        if let Some(connection) = self.connection.take() {
            let _ = epoll::delete(&*self.epoll, &connection.stream);
            // Copies of the descriptor exist until they are dropped, but QEMU must see the end now.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        }
        *self.connection_slot() = None;
        let mut device = self.device();
        if let Ending::Ring(_) = ending {
            device.rings.iter().for_each(Vring::signal_error);
        }
        device.disconnect();
        drop(device);
        self.shared.counters.connected.store(false, Ordering::Relaxed);
        if let Ending::Gone = ending {
            self.watch_listener();
            return;
        }
        self.shared.counters.violations.fetch_add(1, Ordering::Relaxed);
        let cause = std::error::Error::source(ending).map(ToString::to_string);
        tracing::warn!(%ending, cause, "the connection with QEMU was ended");
        self.listen_at = Some(Instant::now() + RING_ERROR_DELAY);
    }

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
