//! Kernel modules: finds the modules for the hardware, and loads them together with the modules that they need.
//!
//! The index files are those of depmod. The modules are stored without compression.

use crate::log;
use crate::pattern::Pattern;
use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Folder of the modules in the initramfs. Their file names sort in the sequence of loading.
const INITRAMFS: &str = "/modules";
/// File with the modules that no device names and every node needs, one name per line.
const ALWAYS_LOADED: &str = "/etc/modules";

/// The index of all kernel modules of the system, and the set of those already tried.
#[derive(Debug, Default)]
pub struct Modules {
    /// Folder of the modules and of their index.
    root: PathBuf,
    aliases: Vec<Alias>,
    /// For each module its file, then the files of the modules that it needs; a file stands before those that it needs.
    files: HashMap<String, Vec<PathBuf>>,
    /// For each module the modules that `modules.softdep` wants to be loaded before it.
    load_before: HashMap<String, Vec<String>>,
    /// Modules whose loading was tried, with or without success; they are not tried again.
    tried: HashSet<String>,
}

/// One line of `modules.alias`: a pattern for the names under which a device or the kernel asks for a module.
#[derive(Debug)]
struct Alias {
    /// Length of the pattern before its first wildcard. This part is compared first, because most patterns differ there
    /// already.
    literal_length: usize,
    pattern: String,
    module: String,
}

impl Alias {
    /// Parses a line `alias PATTERN MODULE`; `None` for a comment.
    fn parse(line: &str) -> Option<Self> {
        let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let literal_length = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
        Some(Self { literal_length, pattern: pattern.into(), module: module.into() })
    }

    fn fits(&self, alias: &str) -> bool {
        alias.as_bytes().starts_with(&self.pattern.as_bytes()[..self.literal_length])
            && Pattern(&self.pattern).matches(alias)
    }
}

impl Modules {
    /// Reads depmod's index in the folder `root`, such as `/lib/modules/6.12.0`.
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
                modules.load_before.insert(with_underscores(module), pre.map(with_underscores).collect());
            }
        }
        Ok(modules)
    }

    /// The modules for a module name or for an alias of a device or of the kernel.
    fn resolve(&self, alias: &str) -> Vec<String> {
        let name = with_underscores(alias);
        if self.files.contains_key(&name) {
            return vec![name];
        }
        self.aliases.iter().filter(|known| known.fits(alias)).map(|known| known.module.clone()).collect()
    }

    /// Loads all modules for a name or an alias. Returns the number of modules that were not loaded before.
    pub fn load(&mut self, alias: &str) -> usize {
        self.resolve(alias).iter().map(|module| self.load_module(module)).sum()
    }

    fn load_module(&mut self, module: &str) -> usize {
        if !self.tried.insert(module.into()) {
            return 0;
        }
        let mut count = 0;
        for other in self.load_before.get(module).cloned().unwrap_or_default() {
            count += self.load(&other);
        }
        for file in self.files.get(module).cloned().unwrap_or_default().iter().rev() {
            match load_file(&self.root.join(file)) {
                Ok(new) => count += usize::from(new),
                // A driver refuses hardware that is absent or disabled; the kernel log has the reason.
                Err(error) => {
                    log::info(&format!("module {} is not used: {error:#}", name_of(file)));
                    break;
                }
            }
        }
        count
    }

    /// Loads the drivers of all present devices, and repeats this until no new device appears: a driver may bring up a bus
    /// with further devices. Returns the number of modules that were not loaded before.
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

/// Phase: loads the modules that are needed to mount the system.
pub fn load_initramfs() -> anyhow::Result<()> {
    let mut files: Vec<_> = fs::read_dir(INITRAMFS)
        .with_context(|| format!("{INITRAMFS} is missing from the initramfs. Write the image again"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files {
        load_file(&file).with_context(|| format!("{} does not load", file.display()))?;
    }
    Ok(())
}

/// Phase: loads the modules that every node needs and the drivers of this machine's hardware.
pub fn load_hardware() -> anyhow::Result<Modules> {
    let mut modules = Modules::open(&directory()?)?;
    let always =
        fs::read_to_string(ALWAYS_LOADED).with_context(|| format!("{ALWAYS_LOADED} is missing from this image"))?;
    for module in always.lines() {
        modules.load(module);
    }
    let count = modules.load_for_devices();
    log::info(&format!("{count} driver modules loaded"));
    Ok(modules)
}

/// Loads modules as the program `modprobe`, which the kernel calls as `modprobe -q -- ALIAS`. Returns the exit code: 1 if
/// no module has the alias.
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
    let release = nix::sys::utsname::uname().context("the kernel's release is not known")?;
    Ok(Path::new("/lib/modules").join(release.release()))
}

/// Loads the module in one file. Returns `false` if it was loaded already.
fn load_file(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("{} does not open", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Collects the contents of the `modalias` files of all devices below `directory`.
fn collect_aliases(directory: &Path, aliases: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Symbolic links are not followed: they lead back up the tree.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_aliases(&entry.path(), aliases);
        } else if entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
        {
            aliases.push(alias.trim().to_owned());
        }
    }
}

/// The name of the module in a file: `virtio_blk` for `virtio-blk.ko`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    with_underscores(name.split('.').next().unwrap_or_default())
}

/// A module name with underscores only. The kernel uses these; files and people use hyphens as well.
fn with_underscores(name: &str) -> String {
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
    fn names_and_aliases_are_resolved_to_modules() {
        let (_dir, modules) = index();
        assert_eq!(modules.resolve("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(modules.resolve("virtio-blk"), ["virtio_blk"]);
        assert_eq!(modules.resolve("fs-ext4"), ["ext4"]);
        assert!(modules.resolve("virtio:d00000003v00001AF4").is_empty());
    }

    #[test]
    fn a_module_is_listed_before_the_modules_that_it_needs() {
        let (_dir, modules) = index();
        let files: Vec<_> = modules.files["virtio_blk"].iter().map(|file| name_of(file)).collect();
        assert_eq!(files, ["virtio_blk", "virtio_ring", "virtio"]);
        assert_eq!(modules.load_before["ext4"], ["crc32c"]);
        assert!(modules.load_before["odd"].is_empty());
    }
}
