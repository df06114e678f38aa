//! Two network namespaces, connected by two virtual cables (veth pairs), with packet filters.

use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Names of the cables: of their interfaces, the same at both ends.
pub const CABLES: [&str; 2] = ["peer0", "peer1"];

/// Part of the namespaces' names, which tells the pairs of one process apart.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two namespaces; dropping it removes them with their cables.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Creates both, with both cables plugged. The address of side `i` on cable `c` is `10.77.c.(i+1)/24`, beside the
    /// link-local ones.
    ///
    /// # Errors
    /// The user may not create namespaces, or iproute2 is missing.
    pub fn new() -> Result<Self> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|side| format!("dyad-process-tests-{}-{number}{side}", process::id()));
        let namespaces = Self { names };
        for name in &namespaces.names {
            ip(&["netns", "add", name]).context("Network namespaces need root.")?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let [a, b] = &namespaces.names;
        for (number, cable) in CABLES.into_iter().enumerate() {
            ip(&["-n", a, "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", b])?;
            for (side, name) in namespaces.names.iter().enumerate() {
                ip(&["-n", name, "link", "set", cable, "up"])?;
                let address = format!("10.77.{number}.{}/24", side + 1);
                ip(&["-n", name, "address", "add", &address, "dev", cable])?;
            }
        }
        Ok(namespaces)
    }

    /// Name of the namespace of side 0 or 1.
    pub fn name(&self, side: usize) -> &str {
        &self.names[side]
    }

    /// Drops the data between the nodes (TCP port 7402) and lets heartbeats (UDP) and the witness pass; or lets all pass.
    ///
    /// # Errors
    /// nftables is missing or refuses.
    pub fn block_data(&self, block: bool) -> Result<()> {
        let rules = if block {
            "table inet data { chain in { type filter hook input priority 0; tcp dport 7402 drop; tcp sport 7402 drop; }; }"
        } else {
            "delete table inet data"
        };
        for name in &self.names {
            ip(&["netns", "exec", name, "nft", rules])?;
        }
        Ok(())
    }

    /// Plugs or pulls one of [`CABLES`].
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
            // After a failed `new` a namespace may not exist.
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
