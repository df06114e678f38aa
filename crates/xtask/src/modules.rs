//! Index of the modules of one kernel: which of them are files, which modules each depends on, which are built in.
//!
//! The two Debian releases differ: the cloud kernel of Debian 12 has `virtio_pci` as a file, that of Debian 13 has it
//! built in. A module that is built in is present, and there is nothing to load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// The texts of `modules.dep` and `modules.builtin`.
pub struct IndexTexts<'a> {
    pub dependencies: &'a str,
    pub built_in: &'a str,
}

/// The index of a modules folder: `modules.dep`, which depmod writes, and `modules.builtin`, which the kernel's build
/// writes.
#[derive(Debug, Default)]
pub struct Modules {
    files: BTreeMap<String, ModuleFile>,
    /// Paths of the built-in modules, as [`module_path`] gives them.
    built_in: BTreeSet<String>,
}

/// A line of `modules.dep`: a module that is a file.
#[derive(Debug)]
pub struct ModuleFile {
    /// Path below the modules folder.
    pub file: String,
    /// Files of the modules that it depends on, in the order of `modules.dep`: the file to load first comes last.
    pub needs: Vec<String>,
}

impl Modules {
    /// Reads `modules.dep` and `modules.builtin` in `folder`, such as `/usr/lib/modules/6.12.0-amd64`.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("The kernel's modules have no index {}.", path.display()))
        };
        Ok(Self::parse(IndexTexts { dependencies: &read("modules.dep")?, built_in: &read("modules.builtin")? }))
    }

    pub fn parse(IndexTexts { dependencies, built_in }: IndexTexts<'_>) -> Self {
        let line = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((module_name(file), ModuleFile { file: file.to_owned(), needs }))
        };
        let files = dependencies.lines().filter_map(line).collect();
        let built_in = built_in.lines().map(|file| module_path(file.trim()).to_owned()).collect();
        Self { files, built_in }
    }

    /// All modules that are files, sorted by name.
    pub fn files(&self) -> impl Iterator<Item = &ModuleFile> {
        self.files.values()
    }

    /// Paths of all modules, files and built-in ones, as [`module_path`] gives them.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files().map(|module| module_path(&module.file)).chain(self.built_in.iter().map(String::as_str))
    }

    /// The files to load for the modules `names`: each file once, and after the files that it depends on. A built-in
    /// module adds no file.
    ///
    /// # Errors
    /// The kernel has one of the modules neither as a file nor built in.
    pub fn load_order<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<&'a str>> {
        let mut order: Vec<&str> = Vec::new();
        for name in names {
            let Some(module) = self.files.get(name) else {
                let built_in = self.built_in.iter().any(|path| module_name(path) == name);
                ensure!(built_in, "The kernel has no module {name}, neither as a file nor built in.");
                continue;
            };
            for file in module.needs.iter().rev().chain([&module.file]) {
                if !order.contains(&file.as_str()) {
                    order.push(file);
                }
            }
        }
        Ok(order)
    }
}

/// Path of a module without its ending: `kernel/fs/ext4/ext4.ko.xz` → `fs/ext4/ext4`.
pub fn module_path(file: &str) -> &str {
    let path = file.strip_prefix("kernel/").unwrap_or(file);
    path.split(".ko").next().unwrap_or(path)
}

/// Name of a module as the kernel shows it: `kernel/arch/x86/crypto/crc32c-intel.ko.xz` → `crc32c_intel`.
pub fn module_name(file: &str) -> String {
    module_path(file).rsplit('/').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cloud kernel of Debian 12: `modules.builtin` is whole, `modules.dep` holds the lines of a few modules.
    fn debian_12() -> Modules {
        Modules::parse(IndexTexts {
            dependencies: include_str!("../fixtures/debian-12/modules.dep"),
            built_in: include_str!("../fixtures/debian-12/modules.builtin"),
        })
    }

    /// The same of Debian 13.
    fn debian_13() -> Modules {
        Modules::parse(IndexTexts {
            dependencies: include_str!("../fixtures/debian-13/modules.dep"),
            built_in: include_str!("../fixtures/debian-13/modules.builtin"),
        })
    }

    fn names(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| module_name(file)).collect()
    }

    #[test]
    fn the_dependencies_of_a_module_are_loaded_before_it() {
        let modules = debian_12();
        let order = modules.load_order(["virtio_blk"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/block/virtio_blk.ko"
            ]
        );
    }

    #[test]
    fn a_file_that_two_modules_need_is_loaded_once() {
        let modules = debian_12();
        let order = modules.load_order(["virtio_pci", "virtio_blk"]).unwrap();
        assert_eq!(
            names(&order),
            ["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]
        );
    }

    #[test]
    fn a_module_that_is_built_in_is_not_missing_and_adds_no_file() {
        let modules = debian_13();
        assert_eq!(modules.load_order(["virtio_pci"]).unwrap(), <[&str; 0]>::default());
        let order = modules.load_order(["virtio_pci", "virtio_blk"]).unwrap();
        assert_eq!(order, ["kernel/drivers/block/virtio_blk.ko.xz"]);
    }

    #[test]
    fn the_error_names_a_module_that_does_not_exist() {
        for modules in [debian_12(), debian_13()] {
            let error = modules.load_order(["virtio_blk", "virtio_moon"]).unwrap_err();
            assert!(error.to_string().contains("virtio_moon"), "{error}");
        }
    }

    #[test]
    fn an_index_without_the_list_of_built_in_modules_is_an_error_that_names_the_file() {
        let folder = std::env::temp_dir().join(format!("dyad-modules-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("modules.dep"), "kernel/fs/fat/fat.ko:\n").unwrap();
        let error = Modules::open(&folder).unwrap_err();
        assert!(error.to_string().contains("modules.builtin"), "{error}");
        fs::write(folder.join("modules.builtin"), "kernel/fs/fuse/fuse.ko\n").unwrap();
        let modules = Modules::open(&folder).unwrap();
        assert_eq!(modules.load_order(["fuse", "fat"]).unwrap(), ["kernel/fs/fat/fat.ko"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn module_names_are_those_that_the_kernel_shows() {
        assert_eq!(module_path("kernel/fs/ext4/ext4.ko.xz"), "fs/ext4/ext4");
        assert_eq!(module_name("kernel/arch/x86/crypto/crc32c-intel.ko"), "crc32c_intel");
        let modules = debian_13();
        let paths: BTreeSet<&str> = modules.paths().collect();
        assert!(paths.contains("drivers/virtio/virtio_pci") && paths.contains("drivers/block/virtio_blk"));
    }
}
