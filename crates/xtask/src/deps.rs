//! Installs the Debian packages and tools that a fresh machine lacks.
//!
//! Only apt and cargo are used, with the machine's own configuration of package sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::host::{self, Host};
use crate::image;

/// Debian packages that the rig, the guest and the tests need; the image names its own.
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
    // Process tests: network namespaces with loss and delay.
    "iproute2",
    // The browser test.
    "chromium",
    "chromium-driver",
];

/// The licence and duplicate checker, by exact version so that every machine checks the same.
const CARGO_DENY: &str = "0.20.2";

/// Installs what is missing. Costs a fraction of a second when nothing is.
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

/// The formatter and the linter: a minimal installation of Rust lacks them.
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

/// Installs cargo-deny below the target directory and returns its path. About a minute on two cores: without
/// optimisation it builds four times faster, and it runs for a second.
pub fn cargo_deny(host: &Host) -> Result<PathBuf> {
    let root = host.cache()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    host::step(&format!("Installing cargo-deny {CARGO_DENY} (a minute or two)"));
    let start = Instant::now();
    let build = root.join("build");
    host::run(
        Command::new("cargo")
            .args(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY])
            // Its target is this machine, whatever the checkout's configuration says.
            .current_dir("/")
            .env_remove("CARGO_TARGET_DIR")
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(&build),
    )?;
    fs::remove_dir_all(&build).context("The build folder of cargo-deny cannot be removed.")?;
    println!("    cargo-deny is there after {} s", start.elapsed().as_secs());
    Ok(program)
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
