//! The file systems that live in the kernel.

use crate::{log, watchdog};
use anyhow::Context;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// type, where, flags, options
type Row = (&'static str, &'static str, MsFlags, &'static str);

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const KERNEL: &[Row] = &[
    ("proc", "/proc", SAFE, ""),
    ("sysfs", "/sys", SAFE, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755"),
    ("devpts", "/dev/pts", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777"),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=755,size=10%"),
    ("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate"),
];

const LATE: &[Row] = &[
    ("tmpfs", "/tmp", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), "mode=1777,size=10%"),
    ("efivarfs", "/sys/firmware/efi/efivars", SAFE, ""),
    ("pstore", "/sys/fs/pstore", SAFE, ""),
];

/// Phase: everything that needs no module.
pub fn kernel() -> anyhow::Result<()> {
    for row in KERNEL {
        attach(row)?;
    }
    watchdog::reserve_descriptor()?;
    fs::create_dir_all("/run/dyad").context("/run is not writable")?;
    // The kernel does not make these; programs expect them.
    for (link, target) in
        [("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "fd/0"), ("/dev/stdout", "fd/1"), ("/dev/stderr", "fd/2")]
    {
        let _ = symlink(target, link);
    }
    Ok(())
}

/// Phase: what needs modules or the final root. A machine without UEFI variables boots all the same.
pub fn late() -> anyhow::Result<()> {
    for row in LATE {
        if let Err(error) = attach(row) {
            log::warn(&format!("{error:#}"));
        }
    }
    Ok(())
}

fn attach((kind, place, flags, options): &Row) -> anyhow::Result<()> {
    if !Path::new(place).exists() {
        // Fails where the kernel alone makes directories; the mount then says so.
        let _ = fs::create_dir_all(place);
    }
    mount(Some(*kind), *place, Some(*kind), *flags, Some(*options))
        .with_context(|| format!("{kind} cannot be mounted at {place}"))
}
