//! Builds the disk of the counting guest with Linux: boot loader, Debian's cloud kernel, `dyad-linux-counter` as PID 1, and room for its ring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::{self, Host};
use crate::modules::Modules;

/// Debian package that depends on the package of the newest cloud kernel.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// Kernel modules with which the guest finds its disk; the kernel of Debian 13 has the first one built in.
const MODULE_NAMES: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// Configuration of the boot loader syslinux: boots the kernel without a prompt.
const SYSLINUX_CONFIG: &str = "\
DEFAULT counter
PROMPT 0
TIMEOUT 0
LABEL counter
  LINUX vmlinuz
  INITRD initrd
  APPEND console=ttyS0,115200 quiet loglevel=3 panic=-1 tsc=reliable
";
/// Disk geometry for the boot loader: sectors per track, and heads below. The cylinders follow from the size.
const SECTORS_PER_TRACK: u64 = 32;
const HEADS: u64 = 64;

/// Builds the disk in the folder `work`. The kernel is downloaded once and kept in the cache.
pub fn build(host: &Host, work: &Path) -> Result<PathBuf> {
    host::run(host.cargo().args(["build", "--release", "--package", "dyad-linux-counter"]))?;
    let kernel = kernel(host)?;
    let initrd = initrd(host, &kernel, work)?;
    disk(&kernel.image, &initrd, work)
}

/// An unpacked kernel package: path of the kernel image, and of its modules folder.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

/// Downloads and unpacks the cloud kernel of this machine's release of Debian, unless the cache has it.
fn kernel(host: &Host) -> Result<Kernel> {
    let text = host::output(Command::new("apt-cache").args(["depends", "--important", KERNEL_PACKAGE]))?;
    let package = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("apt knows no {KERNEL_PACKAGE}; run `apt-get update`."))?
        .to_owned();
    let folder = host.cache()?.join(&package);
    if !folder.exists() {
        let fresh = folder.with_extension("part");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        fs::create_dir_all(&fresh)?;
        println!("    downloading {package}");
        let mut download = Command::new("apt-get");
        // Run by root, apt downloads as the user _apt, who may not write here, and prints a warning.
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        host::run(download.args(["download", &package]).current_dir(&fresh))?;
        let archive = only_entry(&fresh, ".deb")?;
        host::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&fresh))?;
        fs::remove_file(archive)?;
        let modules = modules_folder(&fresh)?;
        let version = modules.file_name().context("The kernel has no version.")?;
        host::run_quietly(host::system_tool("depmod").arg("--basedir").arg(modules_parent(&fresh)).arg(version))?;
        fs::rename(&fresh, &folder)?;
    }
    Ok(Kernel { image: only_entry(&folder.join("boot"), "vmlinuz-")?, modules: modules_folder(&folder)? })
}

/// The folder above `lib/modules`: the root in a package of Debian 12, `usr` in one of Debian 13.
fn modules_parent(root: &Path) -> PathBuf {
    let usr = root.join("usr");
    if usr.join("lib/modules").exists() { usr } else { root.to_owned() }
}

fn modules_folder(root: &Path) -> Result<PathBuf> {
    only_entry(&modules_parent(root).join("lib/modules"), "")
}

/// The only entry of `folder` whose name contains `part`; another number of them is an error.
fn only_entry(folder: &Path, part: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("Cannot read {}.", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [path] => Ok(path.clone()),
        _ => bail!("{} holds {} entries like {part:?}, not one.", folder.display(), found.len()),
    }
}

/// Builds the guest's initramfs: PID 1, and the modules with a list of their order.
fn initrd(host: &Host, kernel: &Kernel, work: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    fs::create_dir_all(root.join("modules"))?;
    let counter = host.artifacts().programs().join("dyad-linux-counter");
    host::run(Command::new("strip").arg("-o").arg(root.join("init")).arg(counter))?;
    let modules = Modules::open(&kernel.modules)?;
    let mut names = String::new();
    for file in modules.load_order(MODULE_NAMES)? {
        let name = copy_unpacked(&kernel.modules.join(file), &root.join("modules"))?;
        names.push_str(&name);
        names.push('\n');
    }
    fs::write(root.join("modules/order"), names)?;
    let archive = work.join("initrd");
    archive_tree(&root, &archive)?;
    Ok(archive)
}

/// Copies one module into `folder`, without xz compression; returns its file name there.
fn copy_unpacked(file: &Path, folder: &Path) -> Result<String> {
    let name = file.file_name().context("A module has no name.")?.to_string_lossy().into_owned();
    let Some(plain) = name.strip_suffix(".xz") else {
        fs::copy(file, folder.join(&name))?;
        return Ok(name);
    };
    let unpacked = fs::File::create(folder.join(plain))?;
    host::run(Command::new("xz").args(["--decompress", "--stdout"]).arg(file).stdout(unpacked))?;
    Ok(plain.to_owned())
}

fn archive_tree(root: &Path, archive: &Path) -> Result<()> {
    let mut list = Command::new("find").arg(".").current_dir(root).stdout(Stdio::piped()).spawn()?;
    let names = list.stdout.take().context("find has no output.")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--owner=0:0", "--quiet"]).current_dir(root);
    host::run(cpio.stdin(names).stdout(fs::File::create(archive)?))?;
    ensure!(list.wait()?.success(), "find failed.");
    Ok(())
}

/// Builds the disk: a FAT file system that a BIOS boots, and behind it room for the ring.
fn disk(kernel: &Path, initrd: &Path, work: &Path) -> Result<PathBuf> {
    let disk = work.join("linux.img");
    let boot = work.join("syslinux.cfg");
    fs::write(&boot, SYSLINUX_CONFIG)?;
    let file = fs::File::create(&disk)?;
    file.set_len(dyad_counter::DATA_OFFSET)?;
    let sectors = dyad_counter::DATA_OFFSET / 512;
    let mut format = Command::new("mformat");
    format.arg("-i").arg(&disk).args(["-h", &HEADS.to_string(), "-s", &SECTORS_PER_TRACK.to_string()]);
    host::run(format.args(["-T", &sectors.to_string(), "-d", "1", "-v", "COUNTER", "::"]))?;
    for (from, to) in [(kernel, "::vmlinuz"), (initrd, "::initrd"), (&boot, "::syslinux.cfg")] {
        host::run(Command::new("mcopy").arg("-i").arg(&disk).arg(from).arg(to))?;
    }
    host::run(Command::new("syslinux").arg("--install").arg(&disk))?;
    file.set_len(dyad_counter::DISK_BYTES)?;
    Ok(disk)
}
