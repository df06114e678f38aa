//! The build machine: paths, and functions that run other programs.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use dyad_rig::artifacts::Artifacts;

/// The checkout that xtask works in, and the paths of built files.
#[derive(Debug)]
pub struct Host {
    repository: PathBuf,
    artifacts: Artifacts,
}

impl Host {
    /// Finds the checkout and the target directory that this program was built from and in.
    pub fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repository = manifest.ancestors().nth(2).context("xtask lies outside the repository.")?.to_owned();
        Ok(Self { repository, artifacts: Artifacts::beside_this_program()? })
    }

    /// Root folder of the checkout.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Paths of the built files.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The cargo target directory, which holds everything that is built or downloaded.
    pub fn target(&self) -> &Path {
        self.artifacts.target()
    }

    /// Folder for downloads and for file systems built from them, `target/cache`; created if it is missing.
    pub fn cache(&self) -> Result<PathBuf> {
        let folder = self.target().join("cache");
        std::fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
        Ok(folder)
    }

    /// A cargo command in the checkout that builds into the same target directory.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.repository).env("CARGO_TARGET_DIR", self.target());
        // cargo sets these variables for this program. Build scripts that watch them, such as ring's, would see a
        // change, and half of the dependencies would be compiled again each time.
        for (name, _) in env::vars_os() {
            let inherited = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.to_string_lossy().starts_with(p));
            if inherited {
                command.env_remove(name);
            }
        }
        command
    }

    /// Builds all programs of the workspace with the release profile.
    pub fn build_programs(&self) -> Result<()> {
        step("Building every program (the first time takes minutes)");
        run(self.cargo().args(["build", "--release", "--workspace", "--bins"]))
    }
}

/// Lets the programs that cargo runs, but not cargo itself, run as root: network namespaces and cgroups need it.
pub fn as_root(mut cargo: Command) -> Command {
    if !nix::unistd::geteuid().is_root() {
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo --preserve-env");
    }
    cargo
}

/// A command for a program in `/usr/sbin` or `/sbin`, which the PATH of a user lacks on Debian.
pub fn system_tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command
}

/// Prints the headline of a step.
pub fn step(what: &str) {
    println!("==> {what}");
}

/// Runs a command to its end and shows its output.
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

/// Runs a command to its end and returns its standard output; a failure's error holds all output.
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
