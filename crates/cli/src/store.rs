//! The file with the session token and the certificate of each known node.

use std::{collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt, path::PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The known nodes, and the file that holds them. Only its owner can read the file.
#[derive(Debug)]
pub(crate) struct NodeStore {
    file: PathBuf,
    /// The nodes by `host:port`.
    nodes: BTreeMap<String, KnownNode>,
}

/// The stored data of one node; empty for an unknown one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct KnownNode {
    /// SHA-256 of the node's certificate, in hexadecimal.
    #[serde(default)]
    pub(crate) certificate: Option<String>,
    #[serde(default)]
    pub(crate) token: Option<String>,
}

impl NodeStore {
    /// Opens the store in `dir`; by default in the user's configuration directory. A missing file is an empty store.
    pub(crate) fn open(dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => default_dir().context("HOME is not set: give --config")?,
        };
        let file = dir.join("nodes.json");
        let nodes = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged: remove it and log in again", file.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        Ok(NodeStore { file, nodes })
    }

    /// The stored data of a node; empty if the node is unknown.
    pub(crate) fn known(&self, node: &str) -> KnownNode {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    /// Changes the stored data of a node and writes the file durably.
    pub(crate) fn update(&mut self, node: &str, change: impl FnOnce(&mut KnownNode)) -> anyhow::Result<()> {
        change(self.nodes.entry(node.to_owned()).or_default());
        self.save()
    }

    /// Deletes a node's certificate and token and writes the file durably.
    pub(crate) fn forget(&mut self, node: &str) -> anyhow::Result<()> {
        self.nodes.remove(node);
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let failed = || format!("{} cannot be written", self.file.display());
        if let Some(dir) = self.file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(failed)?;
        }
        dyad_atomic_file::replace(&self.file, &serde_json::to_vec_pretty(&self.nodes)?).with_context(failed)
    }
}

fn default_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("dyad"))
}
