//! Mounting of the file systems that the kernel provides itself, such as `/proc` and `/sys`.

use crate::{log, watchdog};
use anyhow::Context;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// One mount: type of the file system, mount point, flags, and options.
type MountRow = (&'static str, &'static str, MsFlags, &'static str);

/// Flags of a file system that holds no programs and no devices.
const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const KERNEL: &[MountRow] = &[
    ("proc", "/proc", NO_PROGRAMS, ""),
    ("sysfs", "/sys", NO_PROGRAMS, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755"),
    ("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777"),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=755,size=10%"),
    ("cgroup2", "/sys/fs/cgroup", NO_PROGRAMS, "nsdelegate"),
];

const LATE: &[MountRow] = &[
    ("tmpfs", "/tmp", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777,size=10%"),
    ("efivarfs", "/sys/firmware/efi/efivars", NO_PROGRAMS, ""),
    ("pstore", "/sys/fs/pstore", NO_PROGRAMS, ""),
];

/// Phase: mounts the file systems that need no module, and reserves the descriptor of the watchdog.
pub fn kernel() -> anyhow::Result<()> {
    for row in KERNEL {
        mount_row(row)?;
    }
    watchdog::reserve_descriptor()?;
    fs::create_dir_all("/run/dyad").context("/run is not writable")?;
    // Programs expect these links, which the kernel does not create.
    for (link, target) in
        [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "fd/0"), ("/dev/stdout", "fd/1"), ("/dev/stderr", "fd/2")]
    {
        let _ = symlink(target, link);
    }
    Ok(())
}

/// Phase: mounts the file systems that need modules or the final root. A failure is only logged: a machine without UEFI
/// variables boots too.
pub fn late() -> anyhow::Result<()> {
    for row in LATE {
        if let Err(error) = mount_row(row) {
            log::warn(&format!("{error:#}"));
        }
    }
    Ok(())
}

fn mount_row((kind, mount_point, flags, options): &MountRow) -> anyhow::Result<()> {
    if !Path::new(mount_point).exists() {
        // This fails below `/sys`, where only the kernel creates directories; the mount then reports the error.
        let _ = fs::create_dir_all(mount_point);
    }
    mount(Some(*kind), *mount_point, Some(*kind), *flags, Some(*options))
        .with_context(|| format!("{kind} cannot be mounted at {mount_point}"))
}
