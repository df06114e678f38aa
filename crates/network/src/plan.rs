//! The planned network of a node, and its application.

use crate::dhcp::{Client, Dhcp};
use crate::{Links, NetworkError, Port, Ports};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Mutex;

/// Before setup the ports start their DHCP clients one after the other, with this delay between two ports.
const PORT_STAGGER_DELAY: Duration = Duration::from_secs(3);

/// The network answers of setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the management port.
    pub management: String,
    /// The fixed address; `None`: DHCP, with a link-local address if no server answers.
    pub fixed: Option<Fixed>,
    /// Names of the peer link ports; empty: every other physical port.
    pub peer_links: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    pub address: IpAddr,
    /// Prefix length, in bits.
    pub prefix: u8,
    /// `None`: no default route.
    pub gateway: Option<IpAddr>,
    /// The name servers, in order of preference.
    pub dns: Vec<IpAddr>,
}

impl Fixed {
    fn check(&self) -> Result<(), NetworkError> {
        let longest = if self.address.is_ipv4() { 32 } else { 128 };
        let one_family = self.gateway.is_none_or(|gateway| gateway.is_ipv4() == self.address.is_ipv4());
        if one_family && (1..=longest).contains(&self.prefix) {
            return Ok(());
        }
        Err(NetworkError::Mixed { address: self.address, prefix: self.prefix, gateway: self.gateway })
    }
}

#[derive(Debug)]
pub struct HostNetwork {
    links: Links,
    ports: Ports,
    client: Client,
    resolver: PathBuf,
    /// The running DHCP clients. The lock is held while a plan is applied, so that plans are applied one at a time.
    clients: Mutex<Vec<Dhcp>>,
}

/// Parts of a host that a test replaces.
#[derive(Debug)]
pub struct Substitutes {
    pub ports: Ports,
    /// Program of the DHCP client.
    pub client: PathBuf,
    /// The file of name servers, which is written.
    pub resolver: PathBuf,
}

impl HostNetwork {
    /// Opens the network of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetworkError::Closed`] if the netlink socket does not open.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        Ok(Self {
            links: Links::open()?,
            ports: Ports::default(),
            client: Client::default(),
            resolver: "/run/dyad/resolv.conf".into(),
            clients: Mutex::default(),
        })
    }

    /// Replaces parts of the host, for tests.
    pub fn with(mut self, Substitutes { ports, client, resolver }: Substitutes) -> Self {
        (self.ports, self.client, self.resolver) = (ports, Client { program: client }, resolver);
        self
    }

    /// The physical ports, sorted by name.
    pub fn ports(&self) -> Vec<Port> {
        self.ports.list()
    }

    /// Access to single ports and addresses.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Before setup: sets every port up and starts a DHCP client on each, because the management port is not chosen
    /// yet. [`HostNetwork::likely_management`] then suggests a port that got an address.
    ///
    /// # Errors
    /// A port cannot be set up, or a DHCP client does not start.
    pub async fn discover(&self) -> Result<(), NetworkError> {
        self.ask_on_all(&mut *self.clients.lock().await).await
    }

    /// Takes back an applied plan: no port keeps an address of it, and every port runs a DHCP client as before setup.
    ///
    /// # Errors
    /// A port cannot be changed, or a DHCP client does not start.
    pub async fn return_to_discovery(&self) -> Result<(), NetworkError> {
        let mut clients = self.clients.lock().await;
        for port in self.ports.list() {
            // A port with a DHCP client keeps its address: a browser may be showing the reason for the undo on it.
            if !clients.iter().any(|client| client.port() == port.name) {
                self.links.clear(&port.name, |_| false).await?;
            }
        }
        self.ask_on_all(&mut clients).await
    }

    async fn ask_on_all(&self, clients: &mut Vec<Dhcp>) -> Result<(), NetworkError> {
        for (place, port) in (0_u32..).zip(self.ports.list()) {
            self.links.up(&port.name).await?;
            if !clients.iter().any(|client| client.port() == port.name) {
                clients.push(self.client.start(&self.links, &port.name, PORT_STAGGER_DELAY * place)?);
            }
        }
        Ok(())
    }

    /// The suggested management port: a physical port with an address that is not link-local.
    ///
    /// # Errors
    /// [`NetworkError::Unlisted`] if the kernel does not list the addresses.
    pub async fn likely_management(&self) -> Result<Option<String>, NetworkError> {
        let ports = self.ports.list();
        let addresses = self.links.addresses().await?;
        let far = addresses.into_iter().find(|a| !a.is_link_local() && ports.iter().any(|port| port.name == a.port));
        Ok(far.map(|address| address.port))
    }

    /// Applies a plan. After an error, a corrected plan can be applied.
    ///
    /// # Errors
    /// [`NetworkError::Mixed`] for an impossible fixed address, [`NetworkError::NoPort`] for an absent port, otherwise
    /// what the kernel or the DHCP client refused.
    pub async fn apply(&self, plan: &Plan) -> Result<(), NetworkError> {
        if let Some(fixed) = &plan.fixed {
            fixed.check()?;
        }
        let mut clients = self.clients.lock().await;
        // Set up before any address is removed: a plan with an absent port must not cost the node its address.
        self.links.up(&plan.management).await?;
        let peer_links = self.peer_links(plan);
        for port in &peer_links {
            self.links.up(port).await?;
        }
        let asks = |port: &str| port == plan.management && plan.fixed.is_none();
        for client in std::mem::take(&mut *clients) {
            if asks(client.port()) {
                clients.push(client);
            } else {
                client.stop().await;
            }
        }
        for port in &peer_links {
            self.links.clear(port, |_| false).await?;
        }
        match &plan.fixed {
            Some(fixed) => self.fix(&plan.management, fixed).await,
            None if clients.is_empty() => {
                clients.push(self.client.start(&self.links, &plan.management, Duration::ZERO)?);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The names of the peer link ports of a plan.
    pub fn peer_links(&self, plan: &Plan) -> Vec<String> {
        if !plan.peer_links.is_empty() {
            return plan.peer_links.clone();
        }
        self.ports.list().into_iter().map(|port| port.name).filter(|name| *name != plan.management).collect()
    }

    async fn fix(&self, port: &str, fixed: &Fixed) -> Result<(), NetworkError> {
        self.links.add_address(port, fixed.address, fixed.prefix).await?;
        let same = |address: &crate::Address| address.address == fixed.address && address.prefix == fixed.prefix;
        self.links.clear(port, same).await?;
        // Removing the first address of a subnet makes the kernel remove the others of that subnet as well.
        self.links.add_address(port, fixed.address, fixed.prefix).await?;
        if let Some(gateway) = fixed.gateway {
            self.links.set_gateway(port, gateway).await?;
        }
        let text: String = fixed.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        // Programs read the file at any moment.
        dyad_atomic_file::replace_with_mode(&self.resolver, text.as_bytes(), dyad_atomic_file::PUBLIC)
            .map_err(|source| NetworkError::Resolver { path: self.resolver.clone(), source })
    }
}
