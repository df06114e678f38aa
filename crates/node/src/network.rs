//! The interface to this node's network. [`crate::ports`] implements it with `dyad-network`; [`NoNetwork`] changes nothing.

use std::{error::Error, future::Future, io, path::PathBuf, pin::Pin};

use dyad_network::NetworkError;
use dyad_wizard::{Link, NetworkSettings};

/// The result of a [`NetworkSetup`] method.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The reason why the network was not set up or not returned to its state before setup. The text is one sentence for people.
#[derive(Debug, thiserror::Error)]
pub enum NetworkSetupError {
    /// The kernel refused a port or an address, or DHCP failed.
    #[error("{}", sentence(.0))]
    Refused(#[from] NetworkError),
    /// The file with the saved settings cannot be read or parsed.
    #[error("The network settings in {path} cannot be read: set the network up again.")]
    Damaged { path: PathBuf },
    /// The settings were applied but not saved: the next start does not know them.
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

/// The operations on this node's network that the control plane needs.
pub trait NetworkSetup: Send + Sync + 'static {
    /// Names of the ports that can be the management port, the most likely one first; empty with `--no-network`.
    fn ports(&self) -> NetworkFuture<'_, Vec<String>>;
    /// The ports that can be peer links; empty with `--no-network`.
    fn links(&self) -> NetworkFuture<'_, Vec<Link>>;
    /// The addresses at which people can reach this node, without prefix lengths; none of a peer link and none that is
    /// link-local.
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>>;
    /// Applies the saved settings. Without saved settings, requests an address by DHCP on all ports.
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
    /// Applies these settings and saves them for the next start.
    fn apply(&self, settings: NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
    /// Removes the settings that a failed setup saved, and returns the ports to their state before setup.
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>>;
}

/// The network with `--no-network`: it is not changed, and no ports are offered.
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

/// Turns an error of `dyad-network` into one sentence, with its cause in brackets.
fn sentence(error: &NetworkError) -> String {
    let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
    let text = error.to_string();
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{cause}.", letters.as_str())
}
