//! Types of volumes on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    pub name: String,
    /// Its number in the pool.
    pub id: u64,
    /// Size in bytes.
    pub size: u64,
    /// The node whose VM uses it, "A" or "B".
    #[serde(alias = "home")]
    pub primary: String,
    /// The VM that has it as a disk.
    pub vm: Option<String>,
}

/// Request to create a volume; it reads as zeros.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// Size in bytes, a whole number of MiB.
    pub size: u64,
}

/// An image was written into a volume and is durable on every in-sync node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportReply {
    /// Bytes written from the volume's beginning.
    pub bytes: u64,
    /// SHA-256 of these bytes, in hexadecimal.
    pub sha256: String,
}
