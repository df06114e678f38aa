//! The system: the file tree in the initramfs that becomes the root, and the name of the node.

use crate::sys;
use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, sethostname};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

const ROOT: &str = "/sysroot";
/// The tree, and our programs within it.
const IMAGES: [Image; 2] = [
    Image { file: "/system.squashfs", device: "/dev/loop0", mount_point: ROOT },
    Image { file: "/dyad.squashfs", device: "/dev/loop1", mount_point: "/sysroot/usr/lib/dyad" },
];
/// Mounts that move along into the new root.
const CARRIED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
const HOSTNAME: &str = "/state/hostname";

struct Image {
    /// In the initramfs.
    file: &'static str,
    /// A loop device.
    device: &'static str,
    mount_point: &'static str,
}

/// Phase: mounts the system and makes it the root. The files it lives in stay in the initramfs, compressed.
pub fn enter() -> anyhow::Result<()> {
    IMAGES.iter().try_for_each(attach)?;
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

fn attach(&Image { file: image, device, mount_point }: &Image) -> anyhow::Result<()> {
    let file = File::open(image)
        .with_context(|| format!("{image} is missing from this slot. Write it again, or let the other slot boot"))?;
    let target = OpenOptions::new().read(true).open(device).with_context(|| format!("{device} does not open"))?;
    sys::loop_attach(&target, &file).with_context(|| format!("{device} does not take {image}"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(device), mount_point, Some("squashfs"), flags, None::<&str>)
        .with_context(|| format!("{image} is damaged. Write this slot again, or let the other slot boot"))
}

/// Phase: the host name that setup left in the state, and the loopback interface.
pub fn name() -> anyhow::Result<()> {
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
