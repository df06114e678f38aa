//! The control plane's interface to the node's network. [`crate::ports`] implements it over `dyad-network`; the
//! implementation for `--no-network` changes nothing.

use std::{error::Error, future::Future, io, path::PathBuf, pin::Pin};

use dyad_network::NetworkError;
use dyad_wizard::{Link, NetworkSettings};

/// A future of this module.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the network was not set up or taken back. The text is one sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum NetworkSetupError {
    /// A port, an address or the DHCP client was refused.
    #[error("{}", sentence(.0))]
    Refused(#[from] NetworkError),
    /// The saved settings are not those that this program writes.
    #[error("The network settings in {path} cannot be read: set the network up again.")]
    Damaged { path: PathBuf },
    /// The settings were applied but not saved.
    #[error("The network settings could not be saved in {path}: {source}.")]
    NotSaved {
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The saved settings could not be removed.
    #[error("The network settings in {path} could not be removed: {source}.")]
    NotRemoved {
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
}

/// What the control plane asks of the network.
pub trait NetworkSetup: Send + Sync + 'static {
    /// Ports that can carry management, the likely one first; empty with `--no-network`.
    fn ports(&self) -> NetworkFuture<'_, Vec<String>>;
    /// Ports that can be peer links.
    fn links(&self) -> NetworkFuture<'_, Vec<Link>>;
    /// The addresses at which people reach this node, without prefix, the best one first.
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>>;
    /// Applies the settings saved at setup. Before setup, gets an address by DHCP on any port.
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
    /// Applies these settings and saves them for the next start.
    fn apply(&self, plan: NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
    /// Removes the settings that a failed setup saved, and returns the ports to their state before setup.
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
}

/// `--no-network`: the network of the machine stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

impl NetworkSetup for NoNetwork {
    fn ports(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
    fn links(&self) -> NetworkFuture<'_, Vec<Link>> {
        Box::pin(async { Vec::new() })
    }
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(async { Ok(()) })
    }
    fn apply(&self, _: NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(async { Ok(()) })
    }
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        Box::pin(async { Ok(()) })
    }
}

/// An error of `dyad-network` as one sentence, with its cause in brackets.
fn sentence(error: &NetworkError) -> String {
    let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
    let text = error.to_string();
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{cause}.", letters.as_str())
}
