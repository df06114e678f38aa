//! The build machine: paths, and how other programs are run on it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use dyad_rig::artifacts::Artifacts;

/// The machine and the checkout that xtask works in.
#[derive(Debug)]
pub struct Host {
    repository: PathBuf,
    artifacts: Artifacts,
}

impl Host {
    /// Finds both from where this program was built.
    pub fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repository = manifest.ancestors().nth(2).context("xtask lies outside the repository.")?.to_owned();
        Ok(Self { repository, artifacts: Artifacts::beside_this_program()? })
    }

    /// The root of the checkout.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Everything that is built.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The target directory.
    pub fn target(&self) -> &Path {
        self.artifacts.target()
    }

    /// The folder of what was downloaded; it survives a change of the source.
    pub fn cache(&self) -> Result<PathBuf> {
        let folder = self.target().join("cache");
        std::fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
        Ok(folder)
    }

    /// A cargo command in the checkout that builds into the same target directory.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.repository).env("CARGO_TARGET_DIR", self.target());
        // Variables that cargo sets for this program would look like a change to build scripts that watch these names
        // (ring's does), and half of the dependencies would be compiled again at each turn.
        for (name, _) in env::vars_os() {
            let inherited = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.to_string_lossy().starts_with(p));
            if inherited {
                command.env_remove(name);
            }
        }
        command
    }

    /// Builds every program of the workspace once, with the one profile that all of them share.
    pub fn build_programs(&self) -> Result<()> {
        step("Building every program (the first time takes minutes)");
        run(self.cargo().args(["build", "--release", "--workspace", "--bins"]))
    }
}

/// Makes the programs that cargo runs (not cargo itself) run as root: network namespaces and cgroups need it.
pub fn as_root(mut cargo: Command) -> Command {
    if !nix::unistd::geteuid().is_root() {
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo --preserve-env");
    }
    cargo
}

/// A program of the system's administration: Debian keeps it in a folder that a user's PATH does not have.
pub fn system_tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command
}

/// Says what comes next.
pub fn step(what: &str) {
    println!("==> {what}");
}

/// Runs a command to its end, with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("Cannot start {}.", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status}).", name(command));
    }
    Ok(())
}

/// Runs a command to its end; its output is shown only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("Cannot start {}.", name(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}):\n{text}{errors}", name(command), output.status);
    }
    Ok(text)
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}
