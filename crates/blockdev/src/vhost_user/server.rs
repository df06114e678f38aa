//! Start, status and stop of a device.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::mailbox::Mailbox;
use crate::vhost_user::config::Config;
use crate::vhost_user::shared::Shared;
use crate::vhost_user::worker::Worker;
use crate::{BLOCK_BYTES, Backend};

/// Largest number of queues of a device. A guest uses at most one per virtual CPU.
const MAX_QUEUES: u16 = 64;

/// The reason why [`Server::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The unix socket could not be created.
    #[error("the device's socket {path} could not be opened; check that its directory exists and is writable")]
    Socket { path: PathBuf, source: io::Error },
    /// The system gave no thread or no descriptor.
    #[error("the device's thread could not be started; check the limits on threads and open files")]
    Resources(#[source] io::Error),
    /// The size of the volume or the number of queues is out of range.
    #[error("a device needs 1 to 64 queues and a volume of whole 4 KiB blocks, not {queues} queues and {size} bytes")]
    Shape {
        queues: u16,
        /// Size of the backend in bytes.
        size: u64,
    },
}

/// State and counters of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether the device's thread runs. If it is false before [`ServerHandle::stop`], the thread has panicked or could
    /// not wait for events.
    pub running: bool,
    /// Whether QEMU is connected.
    pub connected: bool,
    /// Number of requests answered since the start.
    pub served: u64,
    /// Number of requests taken from the guest and not answered yet.
    pub in_flight: u64,
    /// Number of connections that ended because a ring or a message violated the protocol.
    pub violations: u64,
}

/// Starts vhost-user-blk devices. Each call of [`Server::start`] is one device for one volume.
pub struct Server;

impl Server {
    /// Serves `backend` on a unix socket at `path` until the handle is stopped or dropped. An existing file at `path`
    /// is replaced. Serving begins at once, so a daemon that has no right to serve must not call this.
    ///
    /// # Errors
    ///
    /// [`StartError`]; in this case no thread was started.
    pub fn start(
        path: impl AsRef<Path>,
        backend: Arc<dyn Backend>,
        config: Config,
    ) -> Result<ServerHandle, StartError> {
        let path = path.as_ref().to_owned();
        let size = backend.size();
        if size == 0 || !size.is_multiple_of(BLOCK_BYTES) || !(1..=MAX_QUEUES).contains(&config.queues) {
            let queues = config.queues;
            return Err(StartError::Shape { queues, size });
        }
        let listener = listen(&path).map_err(|source| StartError::Socket { path: path.clone(), source })?;
        let shared = Arc::new(Shared {
            mailbox: Arc::new(Mailbox::new().map_err(StartError::Resources)?),
            counters: Arc::default(),
            stop: AtomicBool::new(false),
            connection: Mutex::new(None),
        });
        let worker = Worker::new(listener, backend, &config, shared.clone());
        let worker = worker.map_err(StartError::Resources)?;
        let thread = std::thread::Builder::new()
            .name(format!("blk-{:.11}", config.serial))
            .spawn(move || worker.run())
            .map_err(StartError::Resources)?;
        Ok(ServerHandle { path, shared, thread: Some(thread) })
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A running device. Dropping the handle stops the device.
pub struct ServerHandle {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ServerHandle {
    /// State and counters of the device at this moment.
    pub fn status(&self) -> Status {
        let counters = &self.shared.counters;
        Status {
            running: self.thread.as_ref().is_some_and(|thread| !thread.is_finished()),
            connected: counters.connected.load(Ordering::Relaxed),
            served: counters.served.load(Ordering::Relaxed),
            in_flight: counters.in_flight.load(Ordering::Relaxed),
            violations: counters.violations.load(Ordering::Relaxed),
        }
    }

    /// Path of the unix socket that QEMU connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the connection with QEMU, if there is one. QEMU connects again; the requests in flight are then submitted
    /// again.
    pub fn close_connection(&self) {
        self.shared.close_connection();
    }

    /// Ends the connection, removes the socket, and waits for the end of the device's thread. It does not wait for
    /// requests at the backend: their completions are ignored, and the guest's requests stay in flight until the next
    /// server at this path submits them again.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.close_connection();
        self.shared.mailbox.wake_up();
        if let Some(thread) = self.thread.take() {
            // An error means that the thread panicked. The panic hook has printed that, and the device has ended.
            let _ = thread.join();
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.end();
    }
}
