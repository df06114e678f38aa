//! The system: the file tree in the initramfs that becomes the root, and the name of the node.

use crate::machine::Machine;
use crate::sys;
use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, sethostname};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// The tree, a squashfs in the initramfs.
const IMAGE: &str = "/system.squashfs";
const LOOP: &str = "/dev/loop0";
const ROOT: &str = "/sysroot";
/// Mounts that move along into the new root.
const CARRIED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
const HOSTNAME: &str = "/state/hostname";

/// Phase: mounts the tree and makes it the root. The file it lives in stays in the memory of the initramfs, compressed.
pub fn enter(_: &mut Machine) -> anyhow::Result<()> {
    let image = File::open(IMAGE).with_context(|| {
        format!("{IMAGE} is missing from this image. Write the image again, or let the other slot boot")
    })?;
    let device = OpenOptions::new().read(true).open(LOOP).with_context(|| format!("{LOOP} does not open"))?;
    sys::loop_attach(&device, &image).with_context(|| format!("{LOOP} does not take {IMAGE}"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(LOOP), ROOT, Some("squashfs"), flags, None::<&str>)
        .with_context(|| format!("{IMAGE} is damaged. Write the image again, or let the other slot boot"))?;
    for place in CARRIED {
        let target = format!("{ROOT}{place}");
        mount(Some(place), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("{place} cannot be moved into the system"))?;
    }
    // PID 1 shares its root with the kernel's own threads, so the kernel finds `modprobe` in there, too.
    chdir(ROOT).context("the system has no root directory")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("the system cannot become the root")?;
    chroot(".").context("the system cannot become the root")?;
    chdir("/").context("the new root cannot be entered")?;
    Ok(())
}

/// Phase: the host name that setup left in the state, and the loopback interface.
pub fn name(_: &mut Machine) -> anyhow::Result<()> {
    let name = read_name(Path::new(HOSTNAME));
    sethostname(&name).with_context(|| format!("`{name}` is refused as host name"))?;
    sys::interface_up("lo").context("the loopback interface does not start")
}

fn read_name(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let fits =
        |name: &&str| (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    Some(text.trim()).filter(fits).unwrap_or("dyad").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_odd_name_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("hostname");
        assert_eq!(read_name(&file), "dyad");
        for (text, expected) in [("rack1-a\n", "rack1-a"), ("a b", "dyad"), ("", "dyad"), ("x\ny", "dyad")] {
            fs::write(&file, text).expect("written");
            assert_eq!(read_name(&file), expected);
        }
    }
}
