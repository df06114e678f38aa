//! Paths of the files that the rig boots, and of its records.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// The target triple that everything is built for; it names a folder below the target directory.
pub const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The counting guests. They print the same lines and write the same disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountingGuest {
    /// Without an operating system: it counts a fraction of a second after the BIOS has loaded it.
    Bare,
    /// Debian's kernel with its own drivers: inside an emulated node it counts after half a minute.
    Linux,
}

/// Paths of the built files that a rig needs, all below one cargo target directory.
#[derive(Debug, Clone)]
pub struct Artifacts {
    target: PathBuf,
}

impl Artifacts {
    /// The artifacts in the target directory that the running program was built in.
    ///
    /// # Errors
    /// The program does not lie in a cargo target directory.
    pub fn beside_this_program() -> Result<Self> {
        let program = env::current_exe().context("The path of this program is unknown.")?;
        let target = program
            .ancestors()
            .find(|folder| folder.file_name().is_some_and(|name| name == TRIPLE))
            .and_then(Path::parent)
            .with_context(|| format!("{} does not lie in a cargo target directory.", program.display()))?;
        Ok(Self { target: target.to_owned() })
    }

    /// The target directory itself.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Folder of the programs of this workspace, built with the release profile.
    pub fn programs(&self) -> PathBuf {
        self.target.join(TRIPLE).join("release")
    }

    /// The appliance image: a raw disk.
    pub fn image(&self) -> PathBuf {
        self.target.join("image/dyad.img")
    }

    /// The appliance image with a second, newer slot whose boot always fails.
    pub fn broken_image(&self) -> PathBuf {
        self.target.join("image/broken.img")
    }

    /// The appliance image with `dyad-fault-agent` in place of the console.
    pub fn fault_agent_image(&self) -> PathBuf {
        self.target.join("image/fault-agent.img")
    }

    /// The disk of this counting guest: a raw disk that a BIOS boots.
    pub fn guest(&self, guest: CountingGuest) -> PathBuf {
        self.target.join(match guest {
            CountingGuest::Bare => "rig/bare-counter.img",
            CountingGuest::Linux => "rig/linux-counter.img",
        })
    }

    /// Folder with a folder of logs for each run, and the report of the demo.
    pub fn records(&self) -> PathBuf {
        self.target.join("rig")
    }

    /// Checks that the image, the counting guests' disks and the witness were built.
    ///
    /// # Errors
    /// Names the first missing file and the command that makes it.
    pub fn check(&self) -> Result<()> {
        for (file, command) in [
            (self.image(), "cargo xtask image"),
            (self.guest(CountingGuest::Bare), "cargo xtask guest"),
            (self.guest(CountingGuest::Linux), "cargo xtask guest"),
            (self.programs().join("dyad-witness"), "cargo build --release --workspace"),
        ] {
            if !file.exists() {
                bail!("{} is missing; run `{command}` first.", file.display());
            }
        }
        Ok(())
    }

    /// Creates an empty folder for the logs of one run, `name` below [`Artifacts::records`]. An older folder of this
    /// name is removed, or renamed to `name-failed` if that run [failed](keep_as_failed).
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn fresh_records(&self, name: &str) -> Result<PathBuf> {
        let folder = self.records().join(name);
        if folder.join(FAILED).exists() {
            let kept = self.records().join(format!("{name}-failed"));
            remove(&kept)?;
            fs::rename(&folder, &kept).with_context(|| format!("Cannot keep {}.", folder.display()))?;
        }
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
        Ok(folder)
    }
}

/// File in the folder of a failed run: the state of the pair after each failed step.
const FAILED: &str = "failed.txt";

/// Appends `state`, the state of the pair after a failed step, to the records. Their folder is then kept when the next
/// run begins ([`Artifacts::fresh_records`]).
///
/// # Errors
/// The file cannot be written.
pub fn keep_as_failed(records: &Path, state: &str) -> Result<()> {
    let written = OpenOptions::new().create(true).append(true).open(records.join(FAILED));
    written
        .and_then(|mut file| file.write_all(state.as_bytes()))
        .context("The state of a failed run cannot be written.")
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("Cannot remove {}.", folder.display()))
        }
        _ => Ok(()),
    }
}
