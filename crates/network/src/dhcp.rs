//! The DHCP client of a port: `dhcpcd`, as a child process.
//!
//! `dhcpcd` requests an IPv4 address and renews its lease, assigns a link-local address if there is no server, and
//! passes the name servers to its hook script. IPv6 is left to the kernel.
//!
//! A DHCP server checks that an address is free before it offers it. The first client therefore does not probe the
//! address with ARP, which saves seconds. If no server answers within [`QUICK_DISCOVERY_TIMEOUT`], a second client
//! replaces the first: it probes every address with ARP, assigns a link-local one and keeps asking for a server.

use crate::NetworkError;
use crate::link::Links;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Time after which a first client that has got no address is replaced.
const QUICK_DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay before a client that ended is started again.
const CLIENT_RESTART_DELAY: Duration = Duration::from_secs(5);
/// Time limit for the release of an address.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The DHCP client program, which runs once for each port.
#[derive(Debug, Clone)]
pub(crate) struct DhcpClient {
    pub program: PathBuf,
}

impl Default for DhcpClient {
    fn default() -> Self {
        Self { program: "/usr/sbin/dhcpcd".into() }
    }
}

/// The mode of a client: whether it checks the addresses that it assigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DhcpMode {
    /// Takes the address that a server offers, without an ARP probe.
    Quick,
    /// Probes every address with ARP; assigns a link-local one if there is no server.
    Careful,
}

/// The client of one port, which is started again when it ends. Dropping this ends it without releasing the address.
#[derive(Debug)]
pub(crate) struct RunningClient {
    port: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl DhcpClient {
    /// Starts a client on `port`, which is up, after `delay`, and keeps it running. The delays let one client after the
    /// other start, because a start takes a slow processor seconds.
    ///
    /// # Errors
    /// [`NetworkError::Dhcp`] if `delay` is zero and the program does not start. After a delay that is only logged.
    pub fn start(&self, links: &Links, port: &str, delay: Duration) -> Result<RunningClient, NetworkError> {
        let first = match delay.is_zero() {
            true => Some(self.spawn(port, DhcpMode::Quick)),
            false => None,
        };
        let first = first.transpose().map_err(|source| NetworkError::Dhcp { port: port.into(), source })?;
        let (stop, mut stopped) = oneshot::channel();
        let (client, links, name) = (self.clone(), links.clone(), port.to_owned());
        let task = tokio::spawn(async move {
            let child = match first {
                Some(child) => child,
                None => {
                    tokio::select! {
                        () = sleep(delay) => {}
                        _ = &mut stopped => return,
                    }
                    match client.spawn(&name, DhcpMode::Quick) {
                        Ok(child) => child,
                        Err(error) => return tracing::error!(port = %name, %error, "the DHCP client does not start"),
                    }
                }
            };
            keep_running(client, links, name, child, stopped).await;
        });
        Ok(RunningClient { port: port.into(), stop: Some(stop), task })
    }

    /// Starts the client program on `port`.
    fn spawn(&self, port: &str, mode: DhcpMode) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--nobackground", "--ipv4only", "--nodelay"]);
        if mode == DhcpMode::Quick {
            // The DHCP server has checked the address. Without ARP `dhcpcd` assigns no link-local address.
            command.arg("--noarp");
        }
        command.arg(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()
    }

    /// Ends the client of a port, if there is one, and releases its address. A client that an earlier run of this
    /// daemon started is ended too.
    async fn end(&self, port: &str) {
        let mut command = Command::new(&self.program);
        command.args(["--ipv4only", "--exit", port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if let Ok(mut child) = command.spawn() {
            let _ = timeout(RELEASE_TIMEOUT, child.wait()).await;
        }
    }
}

impl RunningClient {
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Ends the client, releases its address and waits until both are done, at most 10 s.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = timeout(RELEASE_TIMEOUT * 2, &mut self.task).await;
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the client of a port again when it ends, and once in the careful mode if it has got no address. Returns when
/// `stopped` fires, or if the program cannot be started.
async fn keep_running(
    client: DhcpClient,
    links: Links,
    port: String,
    mut child: Child,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut mode = DhcpMode::Quick;
    let quick_timeout = sleep(QUICK_DISCOVERY_TIMEOUT);
    tokio::pin!(quick_timeout);
    loop {
        tokio::select! {
            () = &mut quick_timeout, if mode == DhcpMode::Quick => {
                mode = DhcpMode::Careful;
                if has_address(&links, &port).await {
                    continue;
                }
                tracing::info!(%port, "no DHCP server answers: the port gets a link-local address until one does");
                client.end(&port).await;
                let _ = child.kill().await;
            }
            ended = child.wait() => {
                tracing::warn!(%port, ?ended, "the DHCP client ended; it starts again");
                // A client that still runs on the port would make a new one end at once.
                client.end(&port).await;
                sleep(CLIENT_RESTART_DELAY).await;
            }
            _ = &mut stopped => {
                client.end(&port).await;
                let _ = child.kill().await;
                return;
            }
        }
        match client.spawn(&port, mode) {
            Ok(next) => child = next,
            Err(error) => {
                tracing::error!(%port, %error, "the DHCP client does not start again");
                return;
            }
        }
    }
}

/// Whether a port has an IPv4 address. If the kernel does not list the addresses, `true`: the client may have assigned
/// one.
async fn has_address(links: &Links, port: &str) -> bool {
    let known = links.addresses().await;
    known.map_or(true, |all| all.iter().any(|one| one.port == port && one.address.is_ipv4()))
}
