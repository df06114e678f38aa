//! The manifest of an image: a JSON file that lists version, commit, packages, and files with their hashes.

use super::debian::{DebianTree, hex};
use crate::host::{self, Host};
use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the manifest `target` of an image that was built from or into the files `parts`.
pub fn write(host: &Host, debian: &DebianTree, version: &str, parts: &[&Path], target: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for path in parts {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(json!({ "name": name, "bytes": fs::metadata(path)?.len(), "sha256": sha256(path)? }));
    }
    let packages: Vec<_> = debian
        .packages()?
        .into_iter()
        .map(|package| json!({ "name": package.name, "version": package.version, "sha256": package.sha256 }))
        .collect();
    let manifest = json!({
        "version": version,
        "commit": commit(host),
        "kernel": debian.kernel_release()?,
        "crates": { "name": "Cargo.lock", "sha256": sha256(&host.repository().join("Cargo.lock"))? },
        "files": files,
        "packages": packages,
    });
    fs::write(target, serde_json::to_string_pretty(&manifest)? + "\n")
        .with_context(|| format!("Cannot write {}.", target.display()))?;
    Ok(target.into())
}

/// The commit of the checkout, marked if tracked files have changes; `None` outside of git.
fn commit(host: &Host) -> Option<String> {
    let git =
        |arguments: &[&str]| host::output(Command::new("git").arg("-C").arg(host.repository()).args(arguments)).ok();
    let commit = git(&["rev-parse", "HEAD"])?.trim().to_owned();
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.trim().is_empty();
    Some(if clean { commit } else { format!("{commit} with changes") })
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("Cannot open {}.", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()))
}
