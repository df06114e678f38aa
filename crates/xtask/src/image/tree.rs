//! Builds the file tree of a node: the files that `image/files` chooses from the packages, the libraries that they link
//! to, and over them the files of `initramfs/`.

use super::debian::DebianTree;
use super::glob::Pattern;
use crate::host::{self, Host};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of the shared libraries; Debian's dynamic loader searches it without configuration.
const LIBRARY_FOLDER: &str = "usr/lib/x86_64-linux-gnu";

/// Empty folders, most of them mount points.
const EMPTY_FOLDERS: [&str; 11] =
    ["boot", "dev", "proc", "root", "run", "state", "sys", "tmp", "var", "usr/lib/dyad", "usr/lib/dhcpcd"];

/// Symbolic links of the tree: path of the link, and its target.
const LINKS: [(&str, &str); 10] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    // init is also the program that the kernel calls to load a module, and the hook of the DHCP client.
    ("usr/sbin/modprobe", "../lib/dyad/dyad-init"),
    ("usr/sbin/dhcp-hook", "../lib/dyad/dyad-init"),
    ("usr/bin/dyad", "../lib/dyad/dyad"),
    ("etc/os-release", "../usr/lib/dyad/os-release"),
    ("etc/resolv.conf", "../run/dyad/resolv.conf"),
];

/// Builds the tree, without kernel modules, in the folder `target`, which is created.
pub fn build(host: &Host, debian: &DebianTree, target: &Path) -> Result<()> {
    for folder in EMPTY_FOLDERS {
        fs::create_dir_all(target.join(folder))?;
    }
    let rules = host.repository().join("image/files");
    let rules = fs::read_to_string(&rules).with_context(|| format!("Cannot read {}.", rules.display()))?;
    let mut files = choose(&rules, &all_files(debian.root())?)?;
    add_libraries(debian.root(), &mut files)?;
    for file in &files {
        copy(CopyPaths { source: &debian.root().join(file), target: &target.join(file) })?;
    }
    let overlay = host.repository().join("initramfs");
    for file in all_files(&overlay)? {
        copy(CopyPaths { source: &overlay.join(&file), target: &target.join(&file) })?;
    }
    for (link, goal) in LINKS {
        let link = target.join(link);
        fs::create_dir_all(link.parent().context("A link has no folder.")?)?;
        symlink(goal, &link).with_context(|| format!("Cannot link {}.", link.display()))?;
    }
    Ok(())
}

/// The files that the rules choose. A rule that adds no file is an error: a package renamed the file, or another rule
/// has it.
fn choose(rules: &str, all: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut chosen = BTreeSet::new();
    for rule in rules.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|rule| !rule.is_empty()) {
        let before = chosen.len();
        chosen.extend(all.iter().filter(|path| Pattern(rule).matches(path)).cloned());
        ensure!(chosen.len() > before, "`{rule}` in image/files names no file that no other rule names.");
    }
    Ok(chosen)
}

/// Adds the libraries that the chosen programs and libraries link to, also indirectly.
fn add_libraries(root: &Path, files: &mut BTreeSet<String>) -> Result<()> {
    let mut new: Vec<String> = files.iter().cloned().collect();
    while !new.is_empty() {
        let programs: Vec<String> = new.drain(..).filter(|file| is_elf(&root.join(file))).collect();
        if programs.is_empty() {
            break;
        }
        let mut command = Command::new("readelf");
        let text = host::output(command.args(["-d", "-W"]).args(programs.iter().map(|file| root.join(file))))?;
        for name in
            text.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1))
        {
            let library = format!("{LIBRARY_FOLDER}/{name}");
            ensure!(root.join(&library).exists(), "No package brings the library {name}. Add one to image/packages.");
            if files.insert(library.clone()) {
                new.push(library);
            }
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Source and target of a copy, as named fields so that they are not swapped.
struct CopyPaths<'a> {
    source: &'a Path,
    target: &'a Path,
}

/// Copies a file, following links. The copy has mode 755 if the owner may execute the file, else 644.
fn copy(CopyPaths { source, target }: CopyPaths<'_>) -> Result<()> {
    fs::create_dir_all(target.parent().context("A file has no folder.")?)?;
    fs::copy(source, target).with_context(|| format!("Cannot copy {}.", source.display()))?;
    let runs = fs::metadata(source)?.permissions().mode() & 0o100 != 0;
    fs::set_permissions(target, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
    Ok(())
}

/// Paths of all files and links below `root`, relative to it.
pub fn all_files(root: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let place = root.join(&folder);
        for entry in fs::read_dir(&place).with_context(|| format!("Cannot read {}.", place.display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                let Some(text) = path.to_str() else { bail!("{} is no text.", path.display()) };
                files.insert(text.to_owned());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_choose_files_and_a_rule_without_files_is_an_error() {
        let all = ["usr/bin/a", "usr/bin/b", "usr/share/x/y"].map(String::from).into();
        let chosen = choose("# c\nusr/bin/a\nusr/share/**  # all\n", &all).expect("chosen");
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), ["usr/bin/a", "usr/share/x/y"]);
        assert!(choose("usr/bin/zzz", &all).is_err());
    }
}
