//! JSON types of volumes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    pub name: String,
    /// Number of the volume in the pool. It is never used twice; an import gives the volume another number.
    pub id: u64,
    /// Size in bytes.
    pub size: u64,
    /// The node that writes the volume, "A" or "B": that of the VM that uses it.
    #[serde(alias = "home")]
    pub primary: String,
    /// Name of the VM that has the volume as a disk; absent if none has.
    pub vm: Option<String>,
}

/// Request to create a volume. A new volume reads as zeros.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// Size in bytes, a whole number of MiB.
    pub size: u64,
}

/// Reply to a finished import: the image is the volume's content and is durable on every in-sync node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportReply {
    /// Length of the image in bytes; the rest of the volume reads as zeros.
    pub bytes: u64,
    /// SHA-256 of the image, in hexadecimal.
    pub sha256: String,
}
