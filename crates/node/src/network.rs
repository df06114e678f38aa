//! The seam to the node's network. `dyad-network` does the work on a real node; a laptop has none of it.

use std::{future::Future, pin::Pin};

use dyad_wizard::{Link, Network as Wanted};

/// A future of this module.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the control plane asks of the network.
pub trait Network: Send + Sync + 'static {
    /// Ports that could carry management; empty when the network is not ours.
    fn ports(&self) -> Work<'_, Vec<String>>;
    /// Cables that may lead to the other node.
    fn links(&self) -> Work<'_, Vec<Link>>;
    /// The addresses people reach this node at, without prefix, best first.
    fn addresses(&self) -> Work<'_, Vec<String>>;
    /// Sets up the network as it was kept at setup; before setup, gets an address in any way there is.
    fn start(&self) -> Work<'_, Result<(), String>>;
    /// Sets up the network as wanted and keeps it for the next start. The error is one sentence.
    fn apply(&self, wanted: Wanted) -> Work<'_, Result<(), String>>;
    /// Forgets what was kept at a setup that failed: from now on it is as before setup. The error is one sentence.
    fn undo(&self) -> Work<'_, Result<(), String>>;
}

/// `--no-network`: everything is as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn ports(&self) -> Work<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
    fn links(&self) -> Work<'_, Vec<Link>> {
        Box::pin(async { Vec::new() })
    }
    fn addresses(&self) -> Work<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
    fn start(&self) -> Work<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
    fn apply(&self, _: Wanted) -> Work<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
    fn undo(&self) -> Work<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
