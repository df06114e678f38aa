//! A folder on a file system of its own, which can be frozen: a write in it then neither completes nor fails, as on a disk
//! that hangs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A mounted file system. Dropping it thaws and unmounts it.
#[derive(Debug)]
pub struct FreezableFolder {
    mount_point: PathBuf,
}

impl FreezableFolder {
    /// Makes a file system of `bytes` bytes in the sparse file `image` and mounts it at `mount_point`, which it creates.
    ///
    /// # Errors
    /// The user may not mount, or e2fsprogs or util-linux is missing.
    pub fn new(image: &Path, bytes: u64, mount_point: &Path) -> Result<Self> {
        fs::create_dir_all(mount_point)?;
        File::create(image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).args([image, mount_point]))?;
        Ok(Self { mount_point: mount_point.to_owned() })
    }

    /// From now on each write waits.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn freeze(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mount_point))
    }

    /// Lets the writes go on.
    ///
    /// # Errors
    /// The file system is not frozen.
    pub fn thaw(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.mount_point))
    }
}

impl Drop for FreezableFolder {
    fn drop(&mut self) {
        thaw_and_unmount(&self.mount_point);
    }
}

/// Thaws and unmounts what is mounted here, if anything is: also what a test left that was killed.
pub fn thaw_and_unmount(mount_point: &Path) {
    let _ = Command::new("fsfreeze").arg("--unfreeze").arg(mount_point).output();
    // Lazily: a killed daemon may hold files for a moment longer.
    let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(mount_point).output();
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not start."))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
