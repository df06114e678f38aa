//! Installs what a new machine lacks: Debian packages with apt, rustfmt and clippy with rustup.
//!
//! The package sources are those that this machine is configured for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::host::{self, Host};
use crate::image;

/// Debian packages that rig, guest and tests need. Those for building the image are in [`image::PACKAGES`].
const PACKAGES: &[&str] = &[
    // The C compiler of the few crates with C inside, and the static C library.
    "gcc",
    "libc6-dev",
    // Nodes of the rig: machine, UEFI firmware, and `setpriv`, which ends them with the rig.
    "qemu-system-x86",
    "ovmf",
    "util-linux",
    // The guest's disk: boot loader, FAT without mounting, module order, archive.
    "syslinux",
    "syslinux-common",
    "mtools",
    "kmod",
    "cpio",
    "xz-utils",
    // Process tests: network namespaces with loss and delay, packet filters, file systems that can be frozen.
    "iproute2",
    "nftables",
    "e2fsprogs",
    // The browser test.
    "chromium",
    "chromium-driver",
];

/// Installs those packages that are missing. If none is, this takes a fraction of a second.
pub fn install(host: &Host) -> Result<()> {
    let wanted: BTreeSet<&str> = PACKAGES.iter().chain(image::PACKAGES).copied().collect();
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    host::step(&format!("Installing Debian packages: {}", missing.join(" ")));
    apt::install(&missing)?;
    let _ = host.cache()?;
    Ok(())
}

/// Installs rustfmt and clippy if they are missing: a minimal installation of Rust lacks them.
pub fn components(host: &Host) -> Result<()> {
    let there = |name: &str| {
        let output = host.cargo().args([name, "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(name, _)| !there(name))
        .map(|(_, c)| c)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    host::step(&format!("Installing parts of Rust: {}", missing.join(" ")));
    host::run(Command::new("rustup").args(["component", "add"]).args(missing))
        .context("They could not be installed: add them to this installation of Rust, then run the same command again.")
}

/// The compiler that clippy is: rustc with clippy's lints. It lies beside rustc, or is found by its name.
pub fn clippy_driver(host: &Host) -> PathBuf {
    let sysroot = host::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(host.repository()));
    let beside_rustc = sysroot.map(|sysroot| Path::new(sysroot.trim()).join("bin/clippy-driver"));
    beside_rustc.ok().filter(|driver| driver.exists()).unwrap_or_else(|| "clippy-driver".into())
}

fn missing(wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    // dpkg-query fails when it does not know one of the names, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(wanted)
        .output()
        .context("dpkg-query is missing, so this is not Debian: use a machine with Debian 12 or 13.")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let present: BTreeSet<_> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().filter(|name| !present.contains(**name)).map(|name| (*name).to_owned()).collect())
}
