//! The network of a real node, through `dyad-network`; what was wanted at setup is kept in the state directory.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use dyad_network::{Fixed, NetworkError, Plan};
use dyad_wizard::{Link, Network as Wanted};
use serde::{Deserialize, Serialize};

use crate::network::{Network, Work};

/// The network of this node.
pub struct Ports {
    network: dyad_network::Network,
    file: PathBuf,
}

/// What is kept, in the words of the seed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    port: String,
    fixed: Option<KeptFixed>,
    peer_links: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFixed {
    address: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
    dns: Vec<IpAddr>,
}

impl Ports {
    /// The network of this machine; what was wanted at setup is in `state`.
    ///
    /// # Errors
    /// The kernel lets this program not touch the network.
    pub fn open(state: &Path) -> Result<Self, NetworkError> {
        Ok(Ports { network: dyad_network::Network::open()?, file: state.join("network.json") })
    }

    fn kept(&self) -> Result<Option<Kept>, String> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&self.file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(damaged(&self.file)),
        }
    }

    async fn begin(&self) -> Result<(), String> {
        match self.kept() {
            Ok(Some(kept)) => self.network.apply(&kept.plan()).await.map_err(sentence),
            Ok(None) => self.network.discover().await.map_err(sentence),
            Err(damaged) => {
                // Better any address than none: somebody has to be able to see it.
                self.network.discover().await.map_err(sentence)?;
                Err(damaged)
            }
        }
    }

    async fn make(&self, wanted: Wanted) -> Result<(), String> {
        let kept = Kept::from(wanted);
        self.network.apply(&kept.plan()).await.map_err(sentence)?;
        keep(&self.file, &kept).map_err(|error| format!("The network's settings could not be kept: {error}."))
    }

    async fn take_back(&self) -> Result<(), String> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("The network's settings could not be forgotten: {error}."))
            }
            _ => self.network.undo().await.map_err(sentence),
        }
    }

    /// The likely management port first.
    async fn candidates(&self) -> Vec<String> {
        let mut names: Vec<String> = self.network.ports().into_iter().map(|port| port.name).collect();
        if let Ok(Some(likely)) = self.network.likely_management().await {
            names.sort_by_key(|name| *name != likely);
        }
        names
    }

    async fn reachable(&self) -> Vec<String> {
        let peers = self.kept().ok().flatten().map(|kept| kept.peer_links).unwrap_or_default();
        let found = self.network.links().addresses().await.unwrap_or_default();
        let far = found.iter().filter(|a| !a.is_link_local() && !peers.contains(&a.port));
        far.map(|a| a.address.to_string()).take(dyad_desired::limits::ADDRESSES).collect()
    }
}

impl Network for Ports {
    fn ports(&self) -> Work<'_, Vec<String>> {
        Box::pin(self.candidates())
    }
    fn links(&self) -> Work<'_, Vec<Link>> {
        let link = |port: dyad_network::Port| Link { name: port.name, up: port.carrier };
        Box::pin(async move { self.network.ports().into_iter().map(link).collect() })
    }
    fn addresses(&self) -> Work<'_, Vec<String>> {
        Box::pin(self.reachable())
    }
    fn start(&self) -> Work<'_, Result<(), String>> {
        Box::pin(self.begin())
    }
    fn apply(&self, wanted: Wanted) -> Work<'_, Result<(), String>> {
        Box::pin(self.make(wanted))
    }
    fn undo(&self) -> Work<'_, Result<(), String>> {
        Box::pin(self.take_back())
    }
}

impl Kept {
    fn plan(&self) -> Plan {
        let fixed =
            self.fixed.clone().map(|f| Fixed { address: f.address, prefix: f.prefix, gateway: f.gateway, dns: f.dns });
        Plan { management: self.port.clone(), fixed, peer_links: self.peer_links.clone() }
    }
}

impl From<Wanted> for Kept {
    fn from(wanted: Wanted) -> Self {
        let fixed =
            wanted.fixed.map(|f| KeptFixed { address: f.address, prefix: f.prefix, gateway: f.gateway, dns: f.dns });
        Kept { port: wanted.port, fixed, peer_links: wanted.peer_links }
    }
}

/// An error of the network as one sentence, with what is behind it.
fn sentence(error: NetworkError) -> String {
    let cause = std::error::Error::source(&error).map(|source| format!(" ({source})")).unwrap_or_default();
    let text = error.to_string();
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{cause}.", letters.as_str())
}

fn damaged(file: &Path) -> String {
    format!("The network's settings in {} cannot be read: set the network up again.", file.display())
}

fn keep(file: &Path, kept: &Kept) -> io::Result<()> {
    dyad_atomic_file::replace_with_mode(file, &serde_json::to_vec(kept)?, dyad_atomic_file::PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("network.json");
        let fixed = dyad_wizard::Static {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 24,
            gateway: Some("192.0.2.254".parse().unwrap()),
            dns: vec!["192.0.2.53".parse().unwrap()],
        };
        let wanted = Wanted { port: "eth0".into(), fixed: Some(fixed), peer_links: vec!["eth1".into()] };
        let kept = Kept::from(wanted);
        keep(&file, &kept).unwrap();
        assert_eq!(serde_json::from_slice::<Kept>(&fs::read(&file).unwrap()).unwrap(), kept);
        assert_eq!(kept.plan().fixed.unwrap().gateway, Some("192.0.2.254".parse().unwrap()));
    }
}
