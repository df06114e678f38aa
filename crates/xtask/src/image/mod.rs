//! Builds the appliance image: one raw disk with a boot loader and one file that is the whole system.
//!
//! The content is chosen by files below `image/` and `initramfs/`. Each module is one step:
//!
//! ```text
//! debian     packages of Debian 13, unpacked and cached                target/cache/debian-…
//! tree       the files that `image/files` chooses, with their libraries
//! kernel     the modules that `image/modules` chooses
//! squash     tree + kernel → system.squashfs (cached), our programs → dyad.squashfs
//! cpio       init, boot modules and both of them → initramfs
//! uki        stub + kernel + initramfs → dyad-VERSION+3-0.efi
//! disk       partition table, FAT, boot loader, slots → dyad.img
//! ```
//!
//! **Invariants.** Same inputs, same bytes: no time of the build, random number or host name enters a file. The
//! manifest beside the image names the inputs: commit, hash of `Cargo.lock`, kernel, and each package with its hash.

mod cpio;
mod debian;
mod disk;
mod glob;
mod kernel;
mod manifest;
mod options;
mod squash;
mod tree;
mod uki;

pub use debian::{RELEASE, sources};
use options::FILE_TIME;
pub use options::Options;

use crate::host::{self, Host};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Debian packages that the build machine needs to build the image.
pub const PACKAGES: &[&str] = &[
    "mmdebstrap",
    "debian-archive-keyring",
    "squashfs-tools",
    "dosfstools",
    "mtools",
    "binutils",
    "kmod",
    "xz-utils",
    "git",
];

/// Programs of this workspace in the image.
const PROGRAMS: [&str; 5] = ["dyad-init", "dyad-core", "dyad-node", "dyad-console", "dyad"];

/// Limit of a slot, in bytes. Three slots (the running one, the former one and the next one) and the boot
/// loader fit on the 512 MiB of the system partition (`image/partitions`).
const SLOT_BUDGET: u64 = 150 << 20;

/// Paths of the built files.
#[derive(Debug)]
pub struct Image {
    /// The raw disk image.
    pub disk: PathBuf,
    /// The slot in the image: one EFI file with the whole system.
    pub slot: PathBuf,
    /// The manifest: a JSON file beside the disk image.
    pub manifest: PathBuf,
}

/// `cargo xtask image` with the options `words`: builds the image and prints its path.
pub fn run(host: &Host, words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    let start = Instant::now();
    let image = build(host, &options)?;
    println!("    {} after {} s", image.disk.display(), start.elapsed().as_secs());
    Ok(())
}

/// Builds the image. Precondition: the packages of [`PACKAGES`] are installed.
pub fn build(host: &Host, options: &Options) -> Result<Image> {
    let work = host.target().join("image");
    fs::create_dir_all(&work).with_context(|| format!("Cannot create {}.", work.display()))?;
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => {
            host.build_programs()?;
            host.artifacts().programs()
        }
    };

    let debian = debian::fetch(host)?;
    host::step("Building the image");
    let system = squash::system(host, &debian, options)?;
    let version = options.version();
    let os_release = os_release(&version);
    let ours = our_programs(&work, &programs, options, &os_release)?;
    let boot_modules = kernel::boot_modules(host, &debian)?;
    let init = ours.join("dyad-init");
    let dyad = squash::squash(&ours, &work.join("dyad.squashfs"), options.zstd_level())?;

    let parts = |squashed: &[(&str, &Path)]| -> Result<Vec<u8>> { initramfs(&init, &boot_modules, squashed) };
    let whole = parts(&[("system.squashfs", &system), ("dyad.squashfs", &dyad)])?;
    let cmdline = command_line(host, options)?;
    let uki_parts = uki::UkiParts { debian: &debian, work: &work, os_release: &os_release, cmdline: &cmdline };
    let slot = uki_parts.build(&whole, &work.join(format!("dyad-{version}.efi")))?;
    let bytes = fs::metadata(&slot)?.len();
    ensure!(
        bytes <= SLOT_BUDGET,
        "The slot has {} MiB, its budget is {} MiB. Take something out of image/files or image/modules.",
        bytes >> 20,
        SLOT_BUDGET >> 20
    );

    let mut slots = vec![(version.clone(), slot.clone())];
    if let Some(broken) = &options.broken {
        // The broken slot has no squashfs files: init fails, and `dyad.rescue=5` reboots the node 5 s later, as a bad
        // update would.
        let cmdline = format!("{cmdline} dyad.rescue=5");
        let os_release = self::os_release(broken);
        let uki_parts = uki::UkiParts { os_release: &os_release, cmdline: &cmdline, ..uki_parts };
        slots.push((broken.clone(), uki_parts.build(&parts(&[])?, &work.join("broken.efi"))?));
    }

    let disk = options.output.clone().unwrap_or_else(|| host.artifacts().image());
    disk::build(host, &debian, &slots, &disk)?;
    let entered: [&Path; 6] = [&debian.kernel()?, &system, &dyad, &slot, &debian.boot_loader(), &disk];
    let manifest = manifest::write(host, &debian, &version, &entered, &disk.with_extension("json"))?;
    println!("    slot {} MiB, disk {} MiB of content", bytes >> 20, disk::allocated_bytes(&disk)? >> 20);
    Ok(Image { disk, slot, manifest })
}

/// Copies this workspace's programs without debugging information into a folder, with the `os-release` file that names
/// the version.
fn our_programs(work: &Path, programs: &Path, options: &Options, os_release: &str) -> Result<PathBuf> {
    let folder = work.join("programs");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for name in PROGRAMS {
        let source = options.replaced.get(name).cloned().unwrap_or_else(|| programs.join(name));
        ensure!(source.exists(), "{} is missing; build it first.", source.display());
        host::run_quietly(Command::new("strip").arg("-o").arg(folder.join(name)).arg(&source))?;
    }
    fs::write(folder.join("os-release"), os_release)?;
    Ok(folder)
}

fn initramfs(init: &Path, modules: &[(String, Vec<u8>)], squashed: &[(&str, &Path)]) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::new(FILE_TIME);
    for folder in ["dev", "proc", "sys", "run", "sysroot", "modules"] {
        archive.folder(folder);
    }
    // Standard input and output of the first process.
    archive.character_device("dev/console", (5, 1));
    archive.file("init", 0o755, &fs::read(init)?);
    for (name, content) in modules {
        archive.file(&format!("modules/{name}"), 0o644, content);
    }
    for (name, path) in squashed {
        archive.file(name, 0o644, &fs::read(path)?);
    }
    Ok(archive.finish())
}

fn os_release(version: &str) -> String {
    format!(
        "ID=dyad\nNAME=Dyad\nPRETTY_NAME=\"Dyad {version}\"\nVERSION_ID={version}\nIMAGE_ID=dyad\nIMAGE_VERSION={version}\n"
    )
}

fn command_line(host: &Host, options: &Options) -> Result<String> {
    let path = host.repository().join("image/boot/cmdline");
    let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {}.", path.display()))?;
    let words: Vec<&str> = text.split_whitespace().chain(options.cmdline.split_whitespace()).collect();
    Ok(words.join(" "))
}
