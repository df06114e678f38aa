//! Kernel modules: which ones the hardware asks for, and loading them with all they need.
//!
//! The index files are those of depmod; the modules were decompressed when the image was built.

use crate::log;
use crate::pattern::Pattern;
use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Folder of the modules that the initramfs brings; their names sort in the order of loading.
const INITRAMFS: &str = "/modules";
/// File with the modules that are always loaded because no device asks for them, one name per line.
const ALWAYS: &str = "/etc/modules";

/// The modules of the system.
#[derive(Debug, Default)]
pub struct Modules {
    root: PathBuf,
    aliases: Vec<Alias>,
    /// Module → its file and the files it needs, the most basic one last.
    files: HashMap<String, Vec<PathBuf>>,
    /// Module → modules that shall be loaded before it.
    before: HashMap<String, Vec<String>>,
    /// Modules that need no second look, loaded or not.
    done: HashSet<String>,
}

/// What a device or the kernel may call a module.
#[derive(Debug)]
struct Alias {
    /// The part before the first special character. Most aliases differ there, which saves the walk.
    literal: usize,
    pattern: String,
    module: String,
}

impl Alias {
    /// Reads a line of `modules.alias`: `alias PATTERN MODULE`.
    fn parse(line: &str) -> Option<Self> {
        let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
        Some(Self { literal, pattern: pattern.into(), module: module.into() })
    }

    fn fits(&self, alias: &str) -> bool {
        alias.as_bytes().starts_with(&self.pattern.as_bytes()[..self.literal]) && Pattern(&self.pattern).matches(alias)
    }
}

impl Modules {
    /// Reads depmod's index below `root`, such as `/lib/modules/6.12.0`.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
        };
        let mut modules = Self { root: root.into(), ..Self::default() };
        for line in read("modules.dep")?.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let files = std::iter::once(file).chain(needs.split_whitespace()).map(PathBuf::from).collect();
            modules.files.insert(name_of(Path::new(file)), files);
        }
        modules.aliases = read("modules.alias")?.lines().filter_map(Alias::parse).collect();
        for line in read("modules.softdep")?.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let pre = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
                modules.before.insert(normal(module), pre.map(normal).collect());
            }
        }
        Ok(modules)
    }

    /// The modules behind a name or a hardware alias.
    fn resolve(&self, alias: &str) -> Vec<String> {
        let name = normal(alias);
        if self.files.contains_key(&name) {
            return vec![name];
        }
        self.aliases.iter().filter(|known| known.fits(alias)).map(|known| known.module.clone()).collect()
    }

    /// Loads everything that answers to `alias`. Returns how many modules were new.
    pub fn load(&mut self, alias: &str) -> usize {
        self.resolve(alias).iter().map(|module| self.load_module(module)).sum()
    }

    fn load_module(&mut self, module: &str) -> usize {
        if !self.done.insert(module.into()) {
            return 0;
        }
        let mut count = 0;
        for other in self.before.get(module).cloned().unwrap_or_default() {
            count += self.load(&other);
        }
        for file in self.files.get(module).cloned().unwrap_or_default().iter().rev() {
            match insert(&self.root.join(file)) {
                Ok(new) => count += usize::from(new),
                // Drivers refuse hardware that is not there or is switched off; the kernel log has the reason.
                Err(error) => {
                    log::info(&format!("module {} is not used: {error:#}", name_of(file)));
                    break;
                }
            }
        }
        count
    }

    /// Loads drivers for all devices there are, again and again while that brings up new devices.
    pub fn load_for_devices(&mut self) -> usize {
        let mut seen = HashSet::new();
        let mut total = 0;
        loop {
            let mut aliases = Vec::new();
            collect_aliases(Path::new("/sys/devices"), &mut aliases);
            aliases.retain(|alias| seen.insert(alias.clone()));
            if aliases.is_empty() {
                return total;
            }
            total += aliases.iter().map(|alias| self.load(alias)).sum::<usize>();
        }
    }
}

/// Phase: the modules that mounting the system takes.
pub fn load_initramfs() -> anyhow::Result<()> {
    let mut files: Vec<_> = fs::read_dir(INITRAMFS)
        .with_context(|| format!("{INITRAMFS} is missing from the initramfs. Write the image again"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files {
        insert(&file).with_context(|| format!("{} does not load", file.display()))?;
    }
    Ok(())
}

/// Phase: drivers for this machine's hardware and the modules every node needs.
pub fn load_hardware() -> anyhow::Result<Modules> {
    let mut modules = Modules::open(&directory()?)?;
    let always = fs::read_to_string(ALWAYS).with_context(|| format!("{ALWAYS} is missing from this image"))?;
    for module in always.lines() {
        modules.load(module);
    }
    let count = modules.load_for_devices();
    log::info(&format!("{count} driver modules loaded"));
    Ok(modules)
}

/// The kernel asks for a module: `modprobe -q -- ALIAS`. Returns the exit code.
pub fn modprobe(arguments: impl Iterator<Item = String>) -> i32 {
    let Ok(mut modules) = directory().and_then(|root| Modules::open(&root)) else { return 1 };
    let mut known = true;
    for alias in arguments.filter(|argument| !argument.starts_with('-')) {
        known &= !modules.resolve(&alias).is_empty();
        modules.load(&alias);
    }
    i32::from(!known)
}

fn directory() -> anyhow::Result<PathBuf> {
    let release = nix::sys::utsname::uname().context("the kernel does not tell its release")?;
    Ok(Path::new("/lib/modules").join(release.release()))
}

/// Loads one file. `false`: it was there already.
fn insert(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("{} does not open", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The `modalias` files of all devices below `directory`.
fn collect_aliases(directory: &Path, aliases: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Links lead back up the tree.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_aliases(&entry.path(), aliases);
        } else if entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
        {
            aliases.push(alias.trim().to_owned());
        }
    }
}

fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    normal(name.split('.').next().unwrap_or_default())
}

/// The kernel writes module names with underscores, people and files with both.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (tempfile::TempDir, Modules) {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
        write(
            "modules.dep",
            "kernel/a/virtio-blk.ko: kernel/b/virtio_ring.ko kernel/b/virtio.ko\nkernel/b/virtio.ko:\n",
        );
        write("modules.alias", "# c\nalias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\n");
        write("modules.softdep", "softdep ext4 pre: crc32c post: late\nsoftdep odd post: x\n");
        let modules = Modules::open(dir.path()).expect("an index");
        (dir, modules)
    }

    #[test]
    fn names_and_aliases_lead_to_modules() {
        let (_dir, modules) = index();
        assert_eq!(modules.resolve("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(modules.resolve("virtio-blk"), ["virtio_blk"]);
        assert_eq!(modules.resolve("fs-ext4"), ["ext4"]);
        assert!(modules.resolve("virtio:d00000003v00001AF4").is_empty());
    }

    #[test]
    fn needs_come_with_the_most_basic_last() {
        let (_dir, modules) = index();
        let files: Vec<_> = modules.files["virtio_blk"].iter().map(|file| name_of(file)).collect();
        assert_eq!(files, ["virtio_blk", "virtio_ring", "virtio"]);
        assert_eq!(modules.before["ext4"], ["crc32c"]);
        assert!(modules.before["odd"].is_empty());
    }
}
