//! Ports and addresses through the kernel's route netlink.

use crate::NetworkError;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio::sync::Mutex;

/// An IP address that a port has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub port: String,
    pub address: IpAddr,
    /// Prefix length, in bits.
    pub prefix: u8,
}

impl Address {
    /// Whether the address is link-local: not routed, valid only on the network that the port is connected to.
    pub fn is_link_local(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
    }
}

/// Access to the kernel's network interfaces, physical or not, by their names.
#[derive(Debug, Clone)]
pub struct Links {
    handle: Handle,
    /// Held during a netlink dump request: the kernel serves one per socket and refuses a second with EBUSY.
    list_lock: Arc<Mutex<()>>,
}

impl Links {
    /// Opens a netlink socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetworkError::Netlink`] if the socket does not open.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        tokio::spawn(connection);
        Ok(Self { handle, list_lock: Arc::default() })
    }

    /// Sets a port up. The kernel then assigns its IPv6 link-local address.
    ///
    /// # Errors
    /// The port does not exist, or the kernel refuses the change.
    pub async fn set_up(&self, port: &str) -> Result<(), NetworkError> {
        let index = self.index(port).await?;
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(refused(port))
    }

    /// Adds an address to a port; does nothing if the port has it.
    ///
    /// # Errors
    /// The port does not exist, or the kernel refuses the address.
    pub async fn add_address(&self, port: &str, address: IpAddr, prefix: u8) -> Result<(), NetworkError> {
        let index = self.index(port).await?;
        self.handle.address().add(index, address, prefix).replace().execute().await.map_err(refused(port))
    }

    /// Removes the addresses of a port for which `keep` is false. IPv6 link-local addresses stay: the kernel assigns
    /// them.
    ///
    /// # Errors
    /// The port does not exist, or the kernel does not list or remove an address.
    pub async fn remove_addresses(&self, port: &str, keep: impl Fn(&Address) -> bool) -> Result<(), NetworkError> {
        let index = self.index(port).await?;
        for (message, address) in self.address_messages().await? {
            let own = address.address.is_ipv6() && address.is_link_local();
            if message.header.index == index && !own && !keep(&address) {
                self.handle.address().del(message).execute().await.map_err(refused(port))?;
            }
        }
        Ok(())
    }

    /// Sets the default route of the gateway's address family: to `gateway`, through `port`.
    ///
    /// # Errors
    /// The port does not exist, or the kernel refuses the route.
    pub async fn set_gateway(&self, port: &str, gateway: IpAddr) -> Result<(), NetworkError> {
        let index = self.index(port).await?;
        let message = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
            }
        };
        self.handle.route().add(message).replace().execute().await.map_err(refused(port))
    }

    /// All addresses of all ports except loopback addresses; link-local ones come last.
    ///
    /// # Errors
    /// [`NetworkError::NotListed`] if the kernel does not list them.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetworkError> {
        let mut addresses: Vec<_> = self.address_messages().await?.into_iter().map(|(_, address)| address).collect();
        addresses.retain(|address| !address.address.is_loopback());
        addresses.sort_by_key(|a| (a.is_link_local(), a.address.is_ipv6(), a.port.clone(), a.address));
        Ok(addresses)
    }

    /// The addresses of all interfaces, each with the netlink message by which it can be removed.
    async fn address_messages(&self) -> Result<Vec<(AddressMessage, Address)>, NetworkError> {
        let names = self.interface_names().await?;
        let guard = self.list_lock.lock().await;
        let messages: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(NetworkError::NotListed)?;
        drop(guard);
        let read = |message: AddressMessage| {
            let port = names.iter().find(|(index, _)| *index == message.header.index)?.1.clone();
            // On point-to-point links `Address` is the address of the other end.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let address = Address { port, address: local.or(any)?, prefix: message.header.prefix_len };
            Some((message, address))
        };
        Ok(messages.into_iter().filter_map(read).collect())
    }

    /// Index and name of each interface.
    async fn interface_names(&self) -> Result<Vec<(u32, String)>, NetworkError> {
        let _guard = self.list_lock.lock().await;
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(NetworkError::NotListed)?;
        let name = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        };
        Ok(links.iter().filter_map(|link| Some((link.header.index, link.attributes.iter().find_map(name)?))).collect())
    }

    /// The kernel's index of the interface with this name.
    async fn index(&self, port: &str) -> Result<u32, NetworkError> {
        let names = self.interface_names().await?;
        let found = names.into_iter().find(|(_, name)| name == port);
        found.map(|(index, _)| index).ok_or_else(|| NetworkError::NoPort(port.into()))
    }
}

fn refused(port: &str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let port = port.to_owned();
    move |source| NetworkError::Refused { port, source }
}
