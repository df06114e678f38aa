//! The network of a real node, implemented with `dyad-network`. The settings of setup are saved in the state directory.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dyad_network::{FixedAddress, NetworkError, NetworkPlan};
use dyad_wizard::{Link, NetworkSettings};
use serde::{Deserialize, Serialize};

use crate::network::{NetworkFuture, NetworkSetup, NetworkSetupError};

/// The network of a real node.
pub struct ManagedNetwork {
    network: dyad_network::HostNetwork,
    file: PathBuf,
}

/// Content of `network.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedNetwork {
    /// Name of the management port.
    port: String,
    /// The static address; `None` for DHCP.
    fixed: Option<SavedAddress>,
    peer_links: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAddress {
    address: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
    dns: Vec<IpAddr>,
}

impl ManagedNetwork {
    /// Opens the network of this machine. The directory `state` holds `network.json`, the settings of setup.
    ///
    /// # Errors
    /// The kernel's netlink socket does not open, or this program does not run as root.
    pub fn open(state: &Path) -> Result<Self, NetworkError> {
        Ok(ManagedNetwork { network: dyad_network::HostNetwork::open()?, file: state.join("network.json") })
    }

    /// The saved settings; `None` before setup.
    fn saved(&self) -> Result<Option<SavedNetwork>, NetworkSetupError> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&self.file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(damaged(&self.file)),
        }
    }

    async fn start_saved_or_discover(&self) -> Result<(), NetworkSetupError> {
        match self.saved() {
            Ok(Some(saved)) => self.network.apply(&saved.plan()).await.map_err(Into::into),
            Ok(None) => self.network.discover().await.map_err(Into::into),
            Err(damaged) => {
                // The operator needs some address to read this error in a browser and to repair the settings.
                self.network.discover().await?;
                Err(damaged)
            }
        }
    }

    async fn apply_and_save(&self, settings: NetworkSettings) -> Result<(), NetworkSetupError> {
        let saved = SavedNetwork::from(settings);
        self.network.apply(&saved.plan()).await?;
        save(&self.file, &saved).map_err(|source| NetworkSetupError::NotSaved { path: self.file.clone(), source })
    }

    async fn remove_saved_and_discover(&self) -> Result<(), NetworkSetupError> {
        match fs::remove_file(&self.file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkSetupError::NotRemoved { path: self.file.clone(), source })
            }
            _ => self.network.return_to_discovery().await.map_err(Into::into),
        }
    }

    /// Names of all ports, the most likely management port first.
    async fn management_ports(&self) -> Vec<String> {
        let mut names: Vec<String> = self.network.ports().into_iter().map(|port| port.name).collect();
        if let Ok(Some(likely)) = self.network.likely_management().await {
            names.sort_by_key(|name| *name != likely);
        }
        names
    }

    /// The addresses that are neither link-local nor on a peer link, at most as many as the document holds.
    async fn management_addresses(&self) -> Vec<String> {
        let peer_links = self.saved().ok().flatten().map(|saved| saved.peer_links).unwrap_or_default();
        let found = self.network.links().addresses().await.unwrap_or_default();
        let usable = found.iter().filter(|a| !a.is_link_local() && !peer_links.contains(&a.port));
        usable.map(|a| a.address.to_string()).take(dyad_desired::limits::ADDRESSES_MAX).collect()
    }
}

impl NetworkSetup for ManagedNetwork {
    fn ports(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(self.management_ports())
    }
    fn links(&self) -> NetworkFuture<'_, Vec<Link>> {
        let link = |port: dyad_network::Port| Link { name: port.name, up: port.carrier };
        Box::pin(async move { self.network.ports().into_iter().map(link).collect() })
    }
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(self.management_addresses())
    }
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.start_saved_or_discover())
    }
    fn apply(&self, settings: NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.apply_and_save(settings))
    }
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.remove_saved_and_discover())
    }
}

impl SavedNetwork {
    fn plan(&self) -> NetworkPlan {
        let fixed = self.fixed.clone().map(|f| FixedAddress {
            address: f.address,
            prefix: f.prefix,
            gateway: f.gateway,
            dns: f.dns,
        });
        NetworkPlan { management: self.port.clone(), fixed, peer_links: self.peer_links.clone() }
    }
}

impl From<NetworkSettings> for SavedNetwork {
    fn from(settings: NetworkSettings) -> Self {
        let fixed = settings.fixed.map(|f| SavedAddress {
            address: f.address,
            prefix: f.prefix,
            gateway: f.gateway,
            dns: f.dns,
        });
        SavedNetwork { port: settings.port, fixed, peer_links: settings.peer_links }
    }
}

fn damaged(file: &Path) -> NetworkSetupError {
    NetworkSetupError::Damaged { path: file.to_owned() }
}

fn save(file: &Path, saved: &SavedNetwork) -> io::Result<()> {
    dyad_atomic_file::replace_with_mode(file, &serde_json::to_vec(saved)?, dyad_atomic_file::PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_settings_are_read_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("network.json");
        let fixed = dyad_wizard::StaticAddress {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 24,
            gateway: Some("192.0.2.254".parse().unwrap()),
            dns: vec!["192.0.2.53".parse().unwrap()],
        };
        let settings = NetworkSettings { port: "eth0".into(), fixed: Some(fixed), peer_links: vec!["eth1".into()] };
        let saved = SavedNetwork::from(settings);
        save(&file, &saved).unwrap();
        assert_eq!(serde_json::from_slice::<SavedNetwork>(&fs::read(&file).unwrap()).unwrap(), saved);
        assert_eq!(saved.plan().fixed.unwrap().gateway, Some("192.0.2.254".parse().unwrap()));
    }
}
