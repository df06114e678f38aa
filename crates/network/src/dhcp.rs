//! The DHCP client of a port: `dhcpcd`, as a child process.
//!
//! It asks for an IPv4 address, falls back to a link-local one, keeps both fresh, and tells the name servers to the
//! program named in its configuration. IPv6 is the kernel's own business.
//!
//! A DHCP server looks whether an address is free before it offers it, so the first client takes its word and the node
//! answers seconds earlier. Without a server the second client, which probes every address with ARP, takes a
//! link-local one and goes on asking.

use crate::NetworkError;
use crate::link::Links;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long the first client waits for a server.
const QUICK_DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a client that ended is started again.
const CLIENT_RESTART_DELAY: Duration = Duration::from_secs(5);
/// How long a client may take to give its address back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which client is run.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub program: PathBuf,
}

impl Default for Client {
    fn default() -> Self {
        Self { program: "/usr/sbin/dhcpcd".into() }
    }
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DhcpMode {
    /// Takes what a server offers.
    Quick,
    /// Probes every address; link-local if there is no server.
    Careful,
}

/// A running client. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Dhcp {
    port: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Client {
    /// Starts a client on `port`, which is up, and keeps it running. With a delay it starts later: starting takes the
    /// processor seconds on a slow one, which the ports that are asked first can use better.
    pub fn start(&self, links: &Links, port: &str, delay: Duration) -> Result<Dhcp, NetworkError> {
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
            keep(client, links, name, child, stopped).await;
        });
        Ok(Dhcp { port: port.into(), stop: Some(stop), task })
    }

    fn spawn(&self, port: &str, manner: DhcpMode) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--nobackground", "--ipv4only", "--nodelay"]);
        if manner == DhcpMode::Quick {
            // Without ARP there is no link-local address either.
            command.arg("--noarp");
        }
        command.arg(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()
    }

    /// Asks the client of a port to end and to give its address back: ours, or one that an earlier run of this program
    /// left behind. There may be none.
    async fn end(&self, port: &str) {
        let mut command = Command::new(&self.program);
        command.args(["--ipv4only", "--exit", port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if let Ok(mut child) = command.spawn() {
            let _ = timeout(RELEASE_TIMEOUT, child.wait()).await;
        }
    }
}

impl Dhcp {
    /// The port it serves.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Ends the client and waits for it.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = timeout(RELEASE_TIMEOUT * 2, &mut self.task).await;
    }
}

impl Drop for Dhcp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(client: Client, links: Links, port: String, mut child: Child, mut stopped: oneshot::Receiver<()>) {
    let mut manner = DhcpMode::Quick;
    let discovery_timeout = sleep(QUICK_DISCOVERY_TIMEOUT);
    tokio::pin!(discovery_timeout);
    loop {
        tokio::select! {
            () = &mut discovery_timeout, if manner == DhcpMode::Quick => {
                manner = DhcpMode::Careful;
                if has_address(&links, &port).await {
                    continue;
                }
                tracing::info!(%port, "no DHCP server answers; a link-local address will do until one does");
                client.end(&port).await;
                let _ = child.kill().await;
            }
            ended = child.wait() => {
                tracing::warn!(%port, ?ended, "the DHCP client ended; it starts again");
                // Another client of this port would make every new one end at once.
                client.end(&port).await;
                sleep(CLIENT_RESTART_DELAY).await;
            }
            _ = &mut stopped => {
                client.end(&port).await;
                let _ = child.kill().await;
                return;
            }
        }
        match client.spawn(&port, manner) {
            Ok(next) => child = next,
            Err(error) => {
                tracing::error!(%port, %error, "the DHCP client does not start any more");
                return;
            }
        }
    }
}

/// Whether a port has an IPv4 address. What cannot be asked is taken for a yes: the client may be at work.
async fn has_address(links: &Links, port: &str) -> bool {
    let known = links.addresses().await;
    known.map_or(true, |all| all.iter().any(|one| one.port == port && one.address.is_ipv4()))
}
