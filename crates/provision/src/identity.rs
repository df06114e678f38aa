//! Who this node is: one small file on the state partition, written at setup, at pairing and at enrolment.
//!
//! ```text
//!          begin                     finish
//! blank ──────────▶ unfinished.json ────────▶ identity.json
//!   ▲                │         ▲    (rename)        │
//!   └── forget ──────┘         └── decommission ────┘
//!    (disks erased)                  (rename)
//! ```
//!
//! **Invariant.** Before this node writes the first label of a pair, and until it has erased the last one, one of the two
//! files names that pair; both never do. So a setup that was cut short and an erasure that was cut short are one state and
//! are undone alike, without a question: the data of a pair counts only under `identity.json`.

use dyad_desired::WitnessInfo;
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Version of the file; an unknown one is refused rather than guessed at.
const VERSION: u32 = 1;

/// Why an identity cannot be read or written.
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
    #[error("{} cannot be {verb}", path.display())]
    Write {
        path: PathBuf,
        /// The participle of what failed.
        verb: &'static str,
        source: io::Error,
    },
    /// The node has left its pair for good, so that its identity is not written again.
    #[error("this node is being erased")]
    Erasing,
}

/// Who this node is and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeIdentity {
    version: u32,
    /// Id of the pair, hex.
    pub pair_id: String,
    /// Chosen at setup, for people; programs compare `pair_id`.
    pub pair: String,
    pub me: NodeId,
    /// This node's name.
    pub node: String,
    /// Number of this store's life; a wiped store gets a new one.
    pub incarnation: u64,
    /// Shared secret of both nodes that authenticates heartbeats, 32 bytes, hex.
    pub pair_key: String,
    /// Interfaces that are peer links; empty = all.
    pub links: Vec<String>,
    /// The other node, once paired.
    pub peer: Option<Peer>,
    /// The witness, once enrolled.
    pub witness: Option<Witness>,
}

/// The other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub node: String,
    /// SHA-256 of its certificate, hex.
    pub fingerprint: String,
    /// Number of its store's life.
    pub incarnation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Where the witness listens, as `host:port`.
    pub address: String,
    /// SHA-256 of its certificate, hex.
    pub fingerprint: String,
    /// Id of its store, hex: a restored or new store has another.
    pub id: String,
    /// Number of its store's life as told at enrolment; 0 = the other node enrolled the pair.
    pub incarnation: u64,
}

impl Witness {
    /// What the pair's document says of it.
    pub fn info(&self) -> WitnessInfo {
        WitnessInfo { address: self.address.clone(), id: self.id.clone(), fingerprint: self.fingerprint.clone() }
    }
}

/// The names of a pair and of one of its nodes.
#[derive(Debug, Clone, Copy)]
pub struct PairNames<'a> {
    pub pair: &'a str,
    pub node: &'a str,
}

impl NodeIdentity {
    /// Of a first node: everything drawn at random.
    pub fn first_node(PairNames { pair, node }: PairNames<'_>, links: &[String]) -> Self {
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

    /// Of a second node, from what the first told it.
    pub fn joined(node: &str, incarnation: u64, links: &[String], welcome: &Welcome) -> Self {
        Self {
            version: VERSION,
            pair_id: welcome.pair_id.clone(),
            pair: welcome.pair.clone(),
            me: welcome.you,
            node: node.into(),
            incarnation,
            pair_key: welcome.pair_key.clone(),
            links: links.to_vec(),
            peer: Some(welcome.peer.clone()),
            witness: welcome.witness.clone(),
        }
    }

    /// The pair's id as a number.
    pub fn pair_number(&self) -> u128 {
        u128::from_str_radix(&self.pair_id, 16).unwrap_or(0)
    }

    /// The pair's key as bytes.
    pub fn key_bytes(&self) -> [u8; 32] {
        let mut key = [0; 32];
        // Checked at load: 64 hex digits.
        hex::decode_to_slice(&self.pair_key, &mut key).expect("the pair key was checked when it was loaded");
        key
    }

    fn path(state: &Path) -> PathBuf {
        state.join("identity.json")
    }

    fn unfinished_path(state: &Path) -> PathBuf {
        state.join("unfinished.json")
    }

    /// Whether this node is set up, be the file damaged or not.
    pub fn is_there(state: &Path) -> bool {
        Self::path(state).exists()
    }

    /// The identity of this node; `Ok(None)` = it is not set up.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or has an unknown version.
    pub fn load(state: &Path) -> Result<Option<Self>, IdentityError> {
        Self::read(Self::path(state))
    }

    /// The pair whose labels the disks of this node may still carry, although they are worth nothing; `Ok(None)` = there is
    /// none.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or has an unknown version.
    pub fn unfinished(state: &Path) -> Result<Option<Self>, IdentityError> {
        Self::read(Self::unfinished_path(state))
    }

    /// Setup begins: labels of this pair may be written from now on, and are erased if setup is cut short.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, state: &Path) -> Result<(), IdentityError> {
        self.write(Self::unfinished_path(state))
    }

    /// Setup is complete: this node belongs to the pair.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn finish(state: &Path) -> Result<(), IdentityError> {
        Self::rename(Self::unfinished_path(state), &Self::path(state))
    }

    /// This node no longer belongs to its pair, and there is no way back: what is left of the pair here is erased.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn decommission(state: &Path) -> Result<(), IdentityError> {
        Self::rename(Self::path(state), &Self::unfinished_path(state))
    }

    /// No label of the unfinished pair is left.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_unfinished(state: &Path) -> Result<(), IdentityError> {
        let path = Self::unfinished_path(state);
        dyad_atomic_file::remove(&path).map_err(|source| IdentityError::Write { path, verb: "removed", source })
    }

    /// Writes the identity, durably.
    ///
    /// # Errors
    /// The file cannot be written. [`IdentityError::Erasing`]: this node was decommissioned, and a task that is still under
    /// way must not bring its identity back.
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
        renamed.map_err(|source| IdentityError::Write { path: from, verb: "renamed", source })
    }

    fn write(&self, path: PathBuf) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec_pretty(self).expect("an identity of plain data is always encodable");
        let written = dyad_atomic_file::replace(&path, &bytes);
        written.map_err(|source| IdentityError::Write { path, verb: "written", source })
    }
}

/// A number for a new store that no earlier store of the pair has had.
pub fn fresh_incarnation() -> u64 {
    rand::random::<u64>().max(1)
}

/// What the first node tells the second inside the pairing channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// Id of the pair, hex.
    pub pair_id: String,
    /// Chosen at setup of the first node, for people.
    pub pair: String,
    /// The pair's key, hex.
    pub pair_key: String,
    /// Which node the joining one becomes.
    pub you: NodeId,
    /// The first node itself.
    pub peer: Peer,
    /// The witness, if one is enrolled.
    pub witness: Option<Witness>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_refuses_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        let identity = NodeIdentity::first_node(PairNames { pair: "harbour", node: "left" }, &[]);
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
    fn a_pair_that_was_decommissioned_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let identity = NodeIdentity::first_node(PairNames { pair: "harbour", node: "left" }, &[]);
        identity.begin(dir.path()).unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        NodeIdentity::finish(dir.path()).unwrap();
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), None);
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), Some(identity.clone()));
        identity.save(dir.path()).unwrap();
        NodeIdentity::decommission(dir.path()).unwrap();
        assert!(identity.save(dir.path()).is_err());
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), None);
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), Some(identity));
        NodeIdentity::forget_unfinished(dir.path()).unwrap();
        NodeIdentity::forget_unfinished(dir.path()).unwrap();
        assert_eq!(NodeIdentity::unfinished(dir.path()).unwrap(), None);
    }
}
