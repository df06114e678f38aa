//! The network of a real node, through `dyad-network`. The settings given at setup are saved in the state directory.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dyad_network::{FixedAddress, NetworkError, NetworkPlan};
use dyad_wizard::{Link, NetworkSettings};
use serde::{Deserialize, Serialize};

use crate::network::{NetworkFuture, NetworkSetup, NetworkSetupError};

/// The network of this node.
pub struct Ports {
    network: dyad_network::HostNetwork,
    file: PathBuf,
}

/// Content of `network.json`, with the keys of the seed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedNetwork {
    port: String,
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

impl Ports {
    /// The network of this machine; `state` holds `network.json`, the settings given at setup.
    ///
    /// # Errors
    /// The kernel's network interface does not open: this program does not run as root.
    pub fn open(state: &Path) -> Result<Self, NetworkError> {
        Ok(Ports { network: dyad_network::HostNetwork::open()?, file: state.join("network.json") })
    }

    fn saved(&self) -> Result<Option<SavedNetwork>, NetworkSetupError> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&self.file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(damaged(&self.file)),
        }
    }

    async fn begin(&self) -> Result<(), NetworkSetupError> {
        match self.saved() {
            Ok(Some(saved)) => self.network.apply(&saved.plan()).await.map_err(Into::into),
            Ok(None) => self.network.discover().await.map_err(Into::into),
            Err(damaged) => {
                // Any address is better than none: the operator needs it to read this error and to repair the settings.
                self.network.discover().await?;
                Err(damaged)
            }
        }
    }

    async fn make(&self, plan: NetworkSettings) -> Result<(), NetworkSetupError> {
        let saved = SavedNetwork::from(plan);
        self.network.apply(&saved.plan()).await?;
        save(&self.file, &saved).map_err(|source| NetworkSetupError::NotSaved { path: self.file.clone(), source })
    }

    async fn remove_saved(&self) -> Result<(), NetworkSetupError> {
        match fs::remove_file(&self.file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkSetupError::NotRemoved { path: self.file.clone(), source })
            }
            _ => self.network.return_to_discovery().await.map_err(Into::into),
        }
    }

    /// Names of all ports, the likely management port first.
    async fn candidates(&self) -> Vec<String> {
        let mut names: Vec<String> = self.network.ports().into_iter().map(|port| port.name).collect();
        if let Ok(Some(likely)) = self.network.likely_management().await {
            names.sort_by_key(|name| *name != likely);
        }
        names
    }

    async fn reachable(&self) -> Vec<String> {
        let peers = self.saved().ok().flatten().map(|saved| saved.peer_links).unwrap_or_default();
        let found = self.network.links().addresses().await.unwrap_or_default();
        let far = found.iter().filter(|a| !a.is_link_local() && !peers.contains(&a.port));
        far.map(|a| a.address.to_string()).take(dyad_desired::limits::ADDRESSES_MAX).collect()
    }
}

impl NetworkSetup for Ports {
    fn ports(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(self.candidates())
    }
    fn links(&self) -> NetworkFuture<'_, Vec<Link>> {
        let link = |port: dyad_network::Port| Link { name: port.name, up: port.carrier };
        Box::pin(async move { self.network.ports().into_iter().map(link).collect() })
    }
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(self.reachable())
    }
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.begin())
    }
    fn apply(&self, plan: NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.make(plan))
    }
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(self.remove_saved())
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
    fn from(plan: NetworkSettings) -> Self {
        let fixed =
            plan.fixed.map(|f| SavedAddress { address: f.address, prefix: f.prefix, gateway: f.gateway, dns: f.dns });
        SavedNetwork { port: plan.port, fixed, peer_links: plan.peer_links }
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
    fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("network.json");
        let fixed = dyad_wizard::StaticAddress {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 24,
            gateway: Some("192.0.2.254".parse().unwrap()),
            dns: vec!["192.0.2.53".parse().unwrap()],
        };
        let plan = NetworkSettings { port: "eth0".into(), fixed: Some(fixed), peer_links: vec!["eth1".into()] };
        let saved = SavedNetwork::from(plan);
        save(&file, &saved).unwrap();
        assert_eq!(serde_json::from_slice::<SavedNetwork>(&fs::read(&file).unwrap()).unwrap(), saved);
        assert_eq!(saved.plan().fixed.unwrap().gateway, Some("192.0.2.254".parse().unwrap()));
    }
}
