//! The system: mounts the file tree of the image, makes it the root, and sets the name of the node.

use crate::sys;
use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, sethostname};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// Mount point of the system until it becomes the root.
const ROOT: &str = "/sysroot";
/// The file tree of the system, and the programs of Dyad below it.
const IMAGES: [Image; 2] = [
    Image { file: "/system.squashfs", device: "/dev/loop0", mount_point: ROOT },
    Image { file: "/dyad.squashfs", device: "/dev/loop1", mount_point: "/sysroot/usr/lib/dyad" },
];
/// Mount points of the kernel's file systems, which are moved into the new root.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
const HOSTNAME: &str = "/state/hostname";

struct Image {
    /// File with the image, in the initramfs.
    file: &'static str,
    /// The loop device that the file is attached to.
    device: &'static str,
    mount_point: &'static str,
}

/// Phase: mounts the images and makes the system the root. The image files stay in the initramfs, which is memory, in
/// compressed form.
pub fn enter() -> anyhow::Result<()> {
    IMAGES.iter().try_for_each(attach)?;
    for place in MOVED {
        let target = format!("{ROOT}{place}");
        mount(Some(place), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("{place} cannot be moved into the system"))?;
    }
    // Kernel threads share their root with PID 1, so the kernel then finds `modprobe` in the new root.
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

/// Phase: sets the host name that setup has written to the state partition, and starts the loopback interface.
pub fn name() -> anyhow::Result<()> {
    let name = read_name(Path::new(HOSTNAME));
    sethostname(&name).with_context(|| format!("the kernel refuses the host name `{name}`"))?;
    sys::interface_up("lo").context("the loopback interface does not start")
}

/// The host name in the file, or "dyad" if the file is missing or its content is no valid host name.
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
    fn a_missing_or_invalid_host_name_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("hostname");
        assert_eq!(read_name(&file), "dyad");
        for (text, expected) in [("rack1-a\n", "rack1-a"), ("a b", "dyad"), ("", "dyad"), ("x\ny", "dyad")] {
            fs::write(&file, text).expect("written");
            assert_eq!(read_name(&file), expected);
        }
    }
}
