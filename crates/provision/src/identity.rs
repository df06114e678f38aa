//! The identity of this node: one JSON file on the state partition, written at setup, at pairing and at enrolment.
//!
//! ```text
//!       begin_setup              finish_setup
//! blank ──────────▶ unfinished.json ────────▶ identity.json
//!   ▲                │         ▲    (rename)        │
//!   └────────────────┘         └── decommission ────┘
//!   remove_unfinished                (rename)
//!    (disks erased)
//! ```
//!
//! **Invariant.** Before this node writes the first label of a pair, and until it has erased the last label that it
//! can erase, exactly one of the two files names that pair. The data of a pair counts only under `identity.json`. So a
//! setup that was interrupted and an erasure that was interrupted leave the same state, and both are undone in the same
//! way, without asking a person.

use dyad_desired::WitnessInfo;
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Format version of the file. A file of another version is refused.
const VERSION: u32 = 1;

/// The errors of reading and writing an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not the JSON of an identity.
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    /// The file has a format version that this program does not know.
    #[error("{} has version {version}; this program knows {VERSION}", path.display())]
    Version {
        path: PathBuf,
        /// Version of the file.
        version: u32,
    },
    /// The pair's key or id has the wrong length.
    #[error("{} is damaged: the pair's key or id has the wrong length; erase this node and join it again", path.display())]
    Key { path: PathBuf },
    /// The file cannot be written, renamed or removed.
    #[error("{} cannot be {operation}", path.display())]
    Write {
        path: PathBuf,
        /// The operation that failed: `written`, `renamed` or `removed`.
        operation: &'static str,
        source: io::Error,
    },
    /// The node was decommissioned, so its identity is not written again.
    #[error("this node is being erased")]
    Erasing,
}

/// The content of the identity file: the pair, this node, and the keys of the machines that it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeIdentity {
    version: u32,
    /// Id of the pair: 32 hexadecimal digits.
    pub pair_id: String,
    /// Name of the pair, chosen at setup, for people; programs compare `pair_id`.
    pub pair: String,
    /// This node's letter in the pair.
    pub me: NodeId,
    /// This node's name, for people.
    pub node: String,
    /// Random number of this node's store; a store that was erased and set up again has another.
    pub incarnation: u64,
    /// Shared secret of both nodes, which authenticates heartbeats: 64 hexadecimal digits.
    pub pair_key: String,
    /// Names of the interfaces that are peer links; empty: all.
    pub links: Vec<String>,
    /// The other node; `None` until a second node has joined.
    pub peer: Option<Peer>,
    /// The witness; `None` until the pair is enrolled at one.
    pub witness: Option<Witness>,
}

/// The other node of the pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name of the node, for people.
    pub node: String,
    /// SHA-256 of the node's certificate, hexadecimal.
    pub fingerprint: String,
    /// Random number of the node's store.
    pub incarnation: u64,
}

/// The witness at which the pair is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Address and port on which the witness listens, as `host:port`.
    pub address: String,
    /// SHA-256 of the witness's certificate, hexadecimal.
    pub fingerprint: String,
    /// Id of the witness's store, hexadecimal. A new store, or one restored from a copy, has another.
    pub id: String,
    /// Incarnation of the pair's record at the witness, as received at enrolment; 0: the other node enrolled the pair,
    /// and this node does not know it.
    pub incarnation: u64,
}

impl Witness {
    /// The entry for the witness in the pair's document.
    pub fn info(&self) -> WitnessInfo {
        WitnessInfo { address: self.address.clone(), id: self.id.clone(), fingerprint: self.fingerprint.clone() }
    }
}

/// One argument instead of two texts, so that the names of pair and node cannot be swapped.
#[derive(Debug, Clone, Copy)]
pub struct PairAndNodeName<'a> {
    pub pair: &'a str,
    pub node: &'a str,
}

impl NodeIdentity {
    /// The identity of the first node of a new pair, with random pair id, pair key and incarnation.
    pub fn first_node(PairAndNodeName { pair, node }: PairAndNodeName<'_>, links: &[String]) -> Self {
        Self {
            version: VERSION,
            pair_id: hex::encode(rand::random::<[u8; 16]>()),
            pair: pair.into(),
            me: NodeId::A,
            node: node.into(),
            incarnation: fresh_incarnation(),
            pair_key: hex::encode(rand::random::<[u8; 32]>()),
            links: links.to_vec(),
            peer: None,
            witness: None,
        }
    }

    /// The identity of a second node, from the message of the first node.
    pub fn joined(node: &str, incarnation: u64, links: &[String], welcome: &Welcome) -> Self {
        Self {
            version: VERSION,
            pair_id: welcome.pair_id.clone(),
            pair: welcome.pair.clone(),
            me: welcome.joining_node,
            node: node.into(),
            incarnation,
            pair_key: welcome.pair_key.clone(),
            links: links.to_vec(),
            peer: Some(welcome.peer.clone()),
            witness: welcome.witness.clone(),
        }
    }

    /// The pair's id as a number; 0 if it is not hexadecimal, which [`Self::load`] refuses.
    pub fn pair_number(&self) -> u128 {
        u128::from_str_radix(&self.pair_id, 16).unwrap_or(0)
    }

    /// The 32 bytes of the pair's key.
    pub fn key_bytes(&self) -> [u8; 32] {
        let mut key = [0; 32];
        // `first_node` generates 64 hexadecimal digits, and a loaded identity was checked.
        hex::decode_to_slice(&self.pair_key, &mut key).expect("the pair key was checked when it was loaded");
        key
    }

    fn path(state: &Path) -> PathBuf {
        state.join("identity.json")
    }

    fn unfinished_path(state: &Path) -> PathBuf {
        state.join("unfinished.json")
    }

    /// Whether this node is set up: `identity.json` exists, be it readable or not.
    pub fn exists(state: &Path) -> bool {
        Self::path(state).exists()
    }

    /// Reads `identity.json`; `Ok(None)`: this node is not set up.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or has an unknown version.
    pub fn load(state: &Path) -> Result<Option<Self>, IdentityError> {
        Self::read(Self::path(state))
    }

    /// Reads `unfinished.json`: the pair whose labels may be on disks of this node although they do not count any more;
    /// `Ok(None)`: there is no such pair.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or has an unknown version.
    pub fn unfinished(state: &Path) -> Result<Option<Self>, IdentityError> {
        Self::read(Self::unfinished_path(state))
    }

    /// Writes `unfinished.json`. From now on labels of this pair may be written; if setup is interrupted, they are
    /// erased.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin_setup(&self, state: &Path) -> Result<(), IdentityError> {
        self.write(Self::unfinished_path(state))
    }

    /// Renames `unfinished.json` to `identity.json`, as the last step of setup: this node now belongs to the pair.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn finish_setup(state: &Path) -> Result<(), IdentityError> {
        Self::rename(Self::unfinished_path(state), &Self::path(state))
    }

    /// Renames `identity.json` to `unfinished.json`: this node no longer belongs to its pair, and at the next start the
    /// pair's labels and files on this node are erased. This cannot be undone.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn decommission(state: &Path) -> Result<(), IdentityError> {
        Self::rename(Self::path(state), &Self::unfinished_path(state))
    }

    /// Removes `unfinished.json`. Called when the labels of that pair are erased. Without effect if there is no such
    /// file.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_unfinished(state: &Path) -> Result<(), IdentityError> {
        let path = Self::unfinished_path(state);
        dyad_atomic_file::remove(&path).map_err(|source| IdentityError::Write { path, operation: "removed", source })
    }

    /// Replaces `identity.json`, durably.
    ///
    /// # Errors
    /// The file cannot be written. [`IdentityError::Erasing`]: this node was decommissioned, and a task that still runs
    /// must not write its identity again.
    pub fn save(&self, state: &Path) -> Result<(), IdentityError> {
        if Self::unfinished_path(state).exists() {
            return Err(IdentityError::Erasing);
        }
        self.write(Self::path(state))
    }

    fn read(path: PathBuf) -> Result<Option<Self>, IdentityError> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        let identity: Self = match serde_json::from_str(&text) {
            Ok(identity) => identity,
            Err(source) => return Err(IdentityError::Damaged { path, source }),
        };
        if identity.version != VERSION {
            return Err(IdentityError::Version { path, version: identity.version });
        }
        if hex::decode(&identity.pair_key).map(|k| k.len()) != Ok(32) || identity.pair_number() == 0 {
            return Err(IdentityError::Key { path });
        }
        Ok(Some(identity))
    }

    fn rename(from: PathBuf, to: &Path) -> Result<(), IdentityError> {
        let renamed = dyad_atomic_file::rename(&from, to);
        renamed.map_err(|source| IdentityError::Write { path: from, operation: "renamed", source })
    }

    fn write(&self, path: PathBuf) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec_pretty(self).expect("an identity of plain data is always encodable");
        let written = dyad_atomic_file::replace(&path, &bytes);
        written.map_err(|source| IdentityError::Write { path, operation: "written", source })
    }
}

/// A random number for a new store, never 0, so that it differs from those of all earlier stores of the pair.
pub fn fresh_incarnation() -> u64 {
    rand::random::<u64>().max(1)
}

/// The first node's message to the second one inside the pairing channel: all that the second node's identity needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// Id of the pair, hexadecimal.
    pub pair_id: String,
    /// Name of the pair, for people.
    pub pair: String,
    /// The pair's key, hexadecimal.
    pub pair_key: String,
    /// The letter of the joining node in the pair.
    pub joining_node: NodeId,
    /// The first node, as the joining node's peer.
    pub peer: Peer,
    /// The witness, if the pair is enrolled at one.
    pub witness: Option<Witness>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_identity_is_loaded_unchanged_and_a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        let identity = NodeIdentity::first_node(PairAndNodeName { pair: "harbour", node: "left" }, &[]);
        identity.save(dir.path()).unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), Some(identity.clone()));
        let path = dir.path().join("identity.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(&identity.pair_key, "beef")).unwrap();
        assert!(NodeIdentity::load(dir.path()).unwrap_err().to_string().contains("damaged"));
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(NodeIdentity::load(dir.path()).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn the_identity_of_a_decommissioned_node_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let identity = NodeIdentity::first_node(PairAndNodeName { pair: "harbour", node: "left" }, &[]);
        identity.begin_setup(dir.path()).unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        NodeIdentity::finish_setup(dir.path()).unwrap();
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), None);
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), Some(identity.clone()));
        identity.save(dir.path()).unwrap();
        NodeIdentity::decommission(dir.path()).unwrap();
        assert!(identity.save(dir.path()).is_err());
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), Some(identity));
        NodeIdentity::remove_unfinished(dir.path()).unwrap();
        NodeIdentity::remove_unfinished(dir.path()).unwrap();
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), None);
    }
}
