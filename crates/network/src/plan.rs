//! The plan of a node's network, and its application to the ports.

use crate::dhcp::{DhcpClient, RunningClient};
use crate::{Links, NetworkError, Port, Ports};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Mutex;

/// Before setup each port starts its DHCP client this much later than the port before.
const PORT_STAGGER_DELAY: Duration = Duration::from_secs(3);

/// The network of a node, as chosen in setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Name of the management port.
    pub management: String,
    /// The fixed address; `None`: DHCP, with a link-local address if no server answers.
    pub fixed: Option<FixedAddress>,
    /// Names of the peer link ports; empty: every other physical port.
    pub peer_links: Vec<String>,
}

/// A management address that does not come from DHCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAddress {
    pub address: IpAddr,
    /// Prefix length, in bits.
    pub prefix: u8,
    /// `None`: no default route.
    pub gateway: Option<IpAddr>,
    /// The name servers, in order of preference.
    pub dns: Vec<IpAddr>,
}

impl FixedAddress {
    /// Checks the prefix length, and that address and gateway have one family.
    fn check(&self) -> Result<(), NetworkError> {
        let longest = if self.address.is_ipv4() { 32 } else { 128 };
        let one_family = self.gateway.is_none_or(|gateway| gateway.is_ipv4() == self.address.is_ipv4());
        if one_family && (1..=longest).contains(&self.prefix) {
            return Ok(());
        }
        Err(NetworkError::InvalidAddress { address: self.address, prefix: self.prefix, gateway: self.gateway })
    }
}

/// The network of this host: its ports, addresses, DHCP clients and name servers.
#[derive(Debug)]
pub struct HostNetwork {
    links: Links,
    ports: Ports,
    client: DhcpClient,
    /// The file to which the name servers of a fixed address are written.
    resolver: PathBuf,
    /// The running DHCP clients. The lock is held while a plan is applied, so that plans are applied one at a time.
    clients: Mutex<Vec<RunningClient>>,
}

/// The parts of the host that a test replaces.
#[derive(Debug)]
pub struct Substitutes {
    pub ports: Ports,
    /// Program of the DHCP client.
    pub client: PathBuf,
    /// The file to which name servers are written.
    pub resolver: PathBuf,
}

impl HostNetwork {
    /// Opens the network of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetworkError::Netlink`] if the netlink socket does not open.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        Ok(Self {
            links: Links::open()?,
            ports: Ports::default(),
            client: DhcpClient::default(),
            resolver: "/run/dyad/resolv.conf".into(),
            clients: Mutex::default(),
        })
    }

    /// Replaces the parts of the host that tests must not touch.
    pub fn with_substitutes(mut self, Substitutes { ports, client, resolver }: Substitutes) -> Self {
        (self.ports, self.client, self.resolver) = (ports, DhcpClient { program: client }, resolver);
        self
    }

    /// The physical ports, sorted by name.
    pub fn ports(&self) -> Vec<Port> {
        self.ports.list()
    }

    /// The access to single ports and addresses.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Sets every port up and starts a DHCP client on each. Called before setup, when no management port is chosen yet;
    /// [`HostNetwork::likely_management`] then suggests a port that got an address.
    ///
    /// # Errors
    /// A port cannot be set up, or a DHCP client does not start.
    pub async fn discover(&self) -> Result<(), NetworkError> {
        self.start_clients_on_all(&mut *self.clients.lock().await).await
    }

    /// Takes back an applied plan: its fixed address is removed, and every port runs a DHCP client as before setup.
    ///
    /// # Errors
    /// A port cannot be changed, or a DHCP client does not start.
    pub async fn return_to_discovery(&self) -> Result<(), NetworkError> {
        let mut clients = self.clients.lock().await;
        for port in self.ports.list() {
            // A port with a DHCP client keeps its address: the person may be reading over it why setup has failed.
            if !clients.iter().any(|client| client.port() == port.name) {
                self.links.remove_addresses(&port.name, |_| false).await?;
            }
        }
        self.start_clients_on_all(&mut clients).await
    }

    /// Sets every port up and starts a DHCP client on each port that has none in `clients`.
    async fn start_clients_on_all(&self, clients: &mut Vec<RunningClient>) -> Result<(), NetworkError> {
        for (place, port) in (0_u32..).zip(self.ports.list()) {
            self.links.set_up(&port.name).await?;
            if !clients.iter().any(|client| client.port() == port.name) {
                clients.push(self.client.start(&self.links, &port.name, PORT_STAGGER_DELAY * place)?);
            }
        }
        Ok(())
    }

    /// The suggested management port: a physical port with an address that is not link-local, IPv4 preferred.
    ///
    /// # Errors
    /// [`NetworkError::NotListed`] if the kernel does not list the addresses.
    pub async fn likely_management(&self) -> Result<Option<String>, NetworkError> {
        let ports = self.ports.list();
        let addresses = self.links.addresses().await?;
        let routed = addresses.into_iter().find(|a| !a.is_link_local() && ports.iter().any(|port| port.name == a.port));
        Ok(routed.map(|address| address.port))
    }

    /// Applies a plan: sets its ports up, ends the DHCP clients of other ports, and changes addresses. After an error a
    /// corrected plan can be applied.
    ///
    /// # Errors
    /// [`NetworkError::InvalidAddress`] for an impossible fixed address, [`NetworkError::NoPort`] for an
    /// absent port, otherwise what the kernel or the DHCP client refused.
    pub async fn apply(&self, plan: &NetworkPlan) -> Result<(), NetworkError> {
        if let Some(fixed) = &plan.fixed {
            fixed.check()?;
        }
        let mut clients = self.clients.lock().await;
        // All ports are set up before any address is removed, so that a plan with an absent port fails while the node
        // still has its address.
        self.links.set_up(&plan.management).await?;
        let peer_links = self.peer_links(plan);
        for port in &peer_links {
            self.links.set_up(port).await?;
        }
        let uses_dhcp = |port: &str| port == plan.management && plan.fixed.is_none();
        for client in std::mem::take(&mut *clients) {
            if uses_dhcp(client.port()) {
                clients.push(client);
            } else {
                client.stop().await;
            }
        }
        for port in &peer_links {
            self.links.remove_addresses(port, |_| false).await?;
        }
        match &plan.fixed {
            Some(fixed) => self.set_fixed_address(&plan.management, fixed).await,
            None if clients.is_empty() => {
                clients.push(self.client.start(&self.links, &plan.management, Duration::ZERO)?);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The names of the peer links of a plan: those that it names, or all physical ports but the management port.
    pub fn peer_links(&self, plan: &NetworkPlan) -> Vec<String> {
        if !plan.peer_links.is_empty() {
            return plan.peer_links.clone();
        }
        self.ports.list().into_iter().map(|port| port.name).filter(|name| *name != plan.management).collect()
    }

    /// Gives a port the fixed address as its only one, and sets default route and name servers.
    async fn set_fixed_address(&self, port: &str, fixed: &FixedAddress) -> Result<(), NetworkError> {
        self.links.add_address(port, fixed.address, fixed.prefix).await?;
        let same = |address: &crate::Address| address.address == fixed.address && address.prefix == fixed.prefix;
        self.links.remove_addresses(port, same).await?;
        // The kernel removes, with the first address of a subnet, the others of that subnet, so the address is added
        // again.
        self.links.add_address(port, fixed.address, fixed.prefix).await?;
        if let Some(gateway) = fixed.gateway {
            self.links.set_gateway(port, gateway).await?;
        }
        let text: String = fixed.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        // The file is replaced as a whole, because programs may read it at any moment.
        dyad_atomic_file::replace_with_mode(&self.resolver, text.as_bytes(), dyad_atomic_file::PUBLIC)
            .map_err(|source| NetworkError::Resolver { path: self.resolver.clone(), source })
    }
}
