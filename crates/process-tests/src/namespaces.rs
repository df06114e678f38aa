//! Two network namespaces joined by two cables.

use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Names of the cables, the same at both ends.
pub const CABLES: [&str; 2] = ["peer0", "peer1"];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces; dropping it removes them with their cables.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Makes both, with both cables plugged. The address of side `i` on cable `c` is `10.77.c.(i+1)/24`, beside the
    /// link-local ones.
    ///
    /// # Errors
    /// The user may not make namespaces, or iproute2 is missing.
    pub fn new() -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|side| format!("dyad-process-tests-{}-{number}{side}", process::id()));
        let spaces = Self { names };
        for name in &spaces.names {
            ip(&["netns", "add", name]).context("Network namespaces need root.")?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let [a, b] = &spaces.names;
        for (number, cable) in CABLES.into_iter().enumerate() {
            ip(&["-n", a, "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", b])?;
            for (side, name) in spaces.names.iter().enumerate() {
                ip(&["-n", name, "link", "set", cable, "up"])?;
                let address = format!("10.77.{number}.{}/24", side + 1);
                ip(&["-n", name, "address", "add", &address, "dev", cable])?;
            }
        }
        Ok(spaces)
    }

    /// The name of side 0 or 1.
    pub fn name(&self, side: usize) -> &str {
        &self.names[side]
    }

    /// Pulls or plugs one of [`CABLES`].
    ///
    /// # Errors
    /// iproute2 refuses.
    pub fn set_cable(&self, cable: &str, plugged: bool) -> Result<()> {
        // Taking either end down takes the carrier away from both.
        ip(&["-n", &self.names[0], "link", "set", cable, if plugged { "up" } else { "down" }])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // A namespace that could not be made cannot be removed either.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("iproute2 is missing.")?;
    ensure!(
        output.status.success(),
        "`ip {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
