//! What the network of a node shall be, and making it so.

use crate::dhcp::{Client, Dhcp};
use crate::{Links, NetworkError, Port, Ports};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// Before setup each further port begins to ask this much later than the one before it.
const PORT_STAGGER_DELAY: Duration = Duration::from_secs(3);

/// What was answered at setup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The management port.
    pub management: String,
    /// Its fixed address; `None` = DHCP, with a link-local address if nobody answers.
    pub fixed: Option<Fixed>,
    /// The peer links; empty = every other physical port.
    pub peer_links: Vec<String>,
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length, in bits.
    pub prefix: u8,
    /// The router, if there is one.
    pub gateway: Option<IpAddr>,
    /// The name servers, best first.
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

/// The network of this node.
#[derive(Debug)]
pub struct Network {
    links: Links,
    ports: Ports,
    client: Client,
    resolver: PathBuf,
    /// The running DHCP clients. Held while a plan is applied: one at a time.
    clients: Mutex<Vec<Dhcp>>,
}

impl Network {
    /// The network of the namespace of the calling thread.
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

    /// For tests: another list of ports, another DHCP client, another file of name servers.
    pub fn with(mut self, ports: Ports, client: &Path, resolver: &Path) -> Self {
        (self.ports, self.client, self.resolver) = (ports, Client { program: client.into() }, resolver.into());
        self
    }

    /// The physical ports, by name.
    pub fn ports(&self) -> Vec<Port> {
        self.ports.list()
    }

    /// Ports and addresses one by one.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Before setup: sets every port up and asks for an address on each, as nobody has said yet which is which. The one
    /// that gets an address is the likely management port: see [`Network::likely_management`].
    pub async fn discover(&self) -> Result<(), NetworkError> {
        self.ask_on_all(&mut *self.clients.lock().await).await
    }

    /// Takes an applied plan back: no port keeps an address of it, and all of them ask again as before setup.
    pub async fn undo(&self) -> Result<(), NetworkError> {
        let mut clients = self.clients.lock().await;
        for port in self.ports.list() {
            // A port that asks keeps what it was given: people may be reading the reason there.
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

    /// The port that has an address which reaches farther than its cable: the suggestion for the management port.
    pub async fn likely_management(&self) -> Result<Option<String>, NetworkError> {
        let ports = self.ports.list();
        let addresses = self.links.addresses().await?;
        let far = addresses.into_iter().find(|a| !a.is_link_local() && ports.iter().any(|port| port.name == a.port));
        Ok(far.map(|address| address.port))
    }

    /// Makes the network what the plan says. After an error, applying a corrected plan is enough.
    pub async fn apply(&self, plan: &Plan) -> Result<(), NetworkError> {
        if let Some(fixed) = &plan.fixed {
            fixed.check()?;
        }
        let mut clients = self.clients.lock().await;
        // Up first: a plan with a port that does not exist shall not cost the node the address it has.
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

    /// The peer links of a plan.
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
        // The kernel takes addresses of the same subnet away together with the first of them.
        self.links.add_address(port, fixed.address, fixed.prefix).await?;
        if let Some(gateway) = fixed.gateway {
            self.links.set_gateway(port, gateway).await?;
        }
        let text: String = fixed.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
        // Written whole or not at all: programs read it at any moment.
        let fresh = self.resolver.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.resolver))
            .map_err(|source| NetworkError::Resolver { path: self.resolver.clone(), source })
    }
}
