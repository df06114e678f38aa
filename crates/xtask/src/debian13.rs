//! `cargo xtask debian13`: runs in a tree of Debian 13, on any release of Debian, the steps that the README's commands
//! take before they boot nodes: install packages, compile, build the image and the counting guest. It then boots the
//! counting guest with the tree's QEMU.
//!
//! The tree is a minimal installation plus what the README asks for. Each command in it has mount and process
//! namespaces of its own: its mounts and processes end with it. The Rust toolchain and the downloaded crates are this
//! machine's, by bind mount; the repository is mounted read-only.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::checks::Tally;
use crate::host::{self, Host};
use crate::{deps, image};

/// Packages of the tree besides the essential ones: certificates for downloads, and the linker.
const PACKAGES: &str = "ca-certificates,gcc,libc6-dev";

/// Mounts what a command in the tree needs and runs it there. Arguments: the tree, the repository, the folder of build
/// output, cargo's home, the toolchain, the command.
const ENTER_TREE: &str = r#"
tree=$1; repository=$2; output=$3; cargo=$4; toolchain=$5; shift 5
# A root that is a mount point, as mmdebstrap in the tree expects it.
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount --rbind /sys "$tree/sys"
mount -t tmpfs tmpfs "$tree/run"
mount --bind "$repository" "$tree/repository"
mount -o remount,bind,ro "$tree/repository"
mount --bind "$output" "$tree/output"
mount --bind "$cargo" "$tree/cargo"
# Cargo looks there first for cargo-fmt and cargo-clippy, and rustup's own would ask for a rustup that the tree lacks.
if [ -d "$tree/cargo/bin" ]; then mount -t tmpfs tmpfs "$tree/cargo/bin"; fi
mount --bind "$toolchain" "$tree/toolchain"
exec chroot "$tree" env --chdir=/repository "$@"
"#;

/// Installs a package whose script kills dpkg at the first installation, as an interruption does.
const INTERRUPT_DPKG: &str = r#"
mkdir -p /tmp/interrupts/DEBIAN
cd /tmp/interrupts
printf '%s\n' 'Package: dyad-interrupts' 'Version: 1' 'Architecture: all' 'Maintainer: none <none@invalid>' \
    'Description: kills the dpkg that installs it, once' > DEBIAN/control
printf '%s\n' '#!/bin/sh' 'test -e /tmp/interrupted && exit' 'touch /tmp/interrupted' 'kill -KILL $PPID' > DEBIAN/postinst
chmod 755 DEBIAN/postinst
dpkg-deb --build . /tmp/interrupts.deb
! dpkg --install /tmp/interrupts.deb
test -e /tmp/interrupted
"#;

/// Holds the lock of dpkg's front ends for 20 s, from before `xtask deps` starts. The lock is of the kind that apt takes
/// (fcntl), which flock(1) does not. The program is started without cargo, which may take longer than that,
/// and with package lists, without which apt-get does not come as far as the lock.
const DEPS_WHILE_LOCKED: &str = r#"
apt-get -qq update
perl -e 'use Fcntl;
    open(my $lock, ">>", "/var/lib/dpkg/lock-frontend") or die;
    my $range = pack("s s q q i x4", F_WRLCK, 0, 0, 0, 0);
    fcntl($lock, F_SETLK, $range) or die;
    open(my $ready, ">", "/tmp/locked") or die;
    sleep 20' &
for attempt in $(seq 100); do test -e /tmp/locked && break; sleep 0.1; done
test -e /tmp/locked
/output/x86_64-unknown-linux-gnu/release/xtask deps
"#;

/// Runs all steps, also after a failed step, and prints a summary.
pub fn run(host: &Host) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "chroot and mounts need root: run `cargo xtask debian13` as root.");
    let start = Instant::now();
    deps::install(host)?;
    let tree = Tree::build(host)?;
    let mut tally = Tally::default();
    tally.check("an interrupted dpkg is named", || {
        tree.shell(INTERRUPT_DPKG)?;
        tree.expect_failure("cargo xtask deps", ExpectedText("run `dpkg --configure -a`"))?;
        tree.shell("dpkg --configure -a && dpkg --purge dyad-interrupts")
    });
    tally.check("a held lock is named, and packages are installed when it is free", || {
        tree.expect_success_and_text(
            DEPS_WHILE_LOCKED,
            ExpectedText("for another package manager: Could not get lock /var/lib/dpkg/lock-frontend"),
        )
    });
    tally.check("image", || tree.shell("cargo xtask image"));
    tally.check("the counting guest is built and boots", || tree.shell("cargo xtask test machines guest"));
    tree.remove()?;
    tally.report(start)
}

/// Text that the output of a script must contain.
struct ExpectedText<'a>(&'a str);

/// A tree of Debian 13 and the folders that are mounted into it.
struct Tree {
    root: PathBuf,
    repository: PathBuf,
    /// The target directory of cargo in the tree. It is kept: the next run compiles only what has changed.
    output: PathBuf,
    /// CARGO_HOME of the user, with the downloaded crates.
    cargo_home: PathBuf,
    toolchain: PathBuf,
}

impl Tree {
    /// Makes a new tree in `target/debian13/tree` from the mirrors that this machine's apt uses.
    fn build(host: &Host) -> Result<Self> {
        host::step("Making a tree of Debian 13");
        let folder = host.target().join("debian13");
        let tree = Self {
            root: folder.join("tree"),
            repository: host.repository().to_owned(),
            output: folder.join("output"),
            cargo_home: cargo_home()?,
            toolchain: host::output(Command::new("rustc").args(["--print", "sysroot"]))?.trim().into(),
        };
        tree.remove()?;
        fs::create_dir_all(&tree.output).with_context(|| format!("Cannot create {}.", tree.output.display()))?;
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--quiet", "--variant=minbase", "--architectures=amd64"]);
        bootstrap.arg(format!("--include={PACKAGES}")).arg(image::RELEASE).arg(&tree.root);
        host::run(bootstrap.args(image::sources()?)).context("The tree could not be made.")?;
        for folder in ["repository", "output", "cargo", "toolchain"] {
            fs::create_dir(tree.root.join(folder)).with_context(|| format!("Cannot create {folder} in the tree."))?;
        }
        fs::copy("/etc/resolv.conf", tree.root.join("etc/resolv.conf")).context("Cannot copy /etc/resolv.conf.")?;
        Ok(tree)
    }

    /// Runs a shell script in the tree, with its output shown.
    fn shell(&self, script: &str) -> Result<()> {
        let status = self.command(script).status().context("setpriv cannot be started.")?;
        ensure!(status.success(), "The command failed in the tree ({status}).");
        Ok(())
    }

    /// Runs a shell script that must succeed and print `text`.
    fn expect_success_and_text(&self, script: &str, ExpectedText(text): ExpectedText<'_>) -> Result<()> {
        let (output, printed) = self.output(script)?;
        ensure!(output.status.success(), "The command failed in the tree ({}):\n{printed}", output.status);
        ensure!(printed.contains(text), "`{text}` is missing from the output:\n{printed}");
        Ok(())
    }

    /// Runs a shell script that must fail and print `text`.
    fn expect_failure(&self, script: &str, ExpectedText(text): ExpectedText<'_>) -> Result<()> {
        let (output, printed) = self.output(script)?;
        if output.status.success() {
            bail!("The command succeeded in the tree:\n{printed}");
        }
        ensure!(printed.contains(text), "`{text}` is missing from the output:\n{printed}");
        Ok(())
    }

    fn output(&self, script: &str) -> Result<(Output, String)> {
        let output = self.command(script).output().context("setpriv cannot be started.")?;
        let printed = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
        Ok((output, printed))
    }

    fn command(&self, script: &str) -> Command {
        // The kernel ends the command with this program, also when it is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation=private", "--pid", "--fork"]);
        command.args(["--kill-child", "sh", "-ec", ENTER_TREE, "sh"]);
        command.args([&self.root, &self.repository, &self.output, &self.cargo_home, &self.toolchain]);
        command.args(["sh", "-ec", script]);
        let proxies = env::vars_os().filter(|(name, _)| name.to_string_lossy().to_lowercase().ends_with("_proxy"));
        command.env_clear().envs(proxies);
        command.env("PATH", "/toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("CARGO_HOME", "/cargo").env("CARGO_TARGET_DIR", "/output");
        command
    }

    /// Removes the tree. Nothing is mounted in it outside of the commands' own namespaces.
    fn remove(&self) -> Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root).with_context(|| format!("Cannot remove {}.", self.root.display()))?;
        }
        Ok(())
    }
}

fn cargo_home() -> Result<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    given.or(usual).context("Neither CARGO_HOME nor HOME is set.")
}
