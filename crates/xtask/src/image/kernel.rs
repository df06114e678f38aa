//! Selects kernel modules by the rules in `image/modules`.

use super::debian::DebianTree;
use super::glob::Pattern;
use crate::host::{self, Host};
use crate::modules::{Modules, module_name, module_path};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The rules in the file `image/modules`.
#[derive(Debug, Default)]
struct ModuleRules {
    /// `boot`: names of the modules in the initramfs, in the order of loading; init loads them.
    boot: Vec<String>,
    /// `load`: names of the modules that every node loads after the initramfs.
    load: Vec<String>,
    /// `+` and `-`: a pattern of module paths, included if true. The last rule that matches a path decides.
    select: Vec<(bool, String)>,
}

/// Copies the chosen modules, unpacked, into the file tree, runs depmod, and writes `etc/modules`, the list of those
/// that every node loads.
pub fn install(host: &Host, debian: &DebianTree, tree: &Path) -> Result<()> {
    let rules = read_module_rules(host)?;
    let source = debian.modules()?;
    let modules = Modules::open(&source)?;
    let release = debian.kernel_release()?;
    let target = tree.join("usr/lib/modules").join(&release);
    fs::create_dir_all(&target)?;
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(source.join(name), target.join(name)).with_context(|| format!("The kernel has no {name}."))?;
    }
    let chosen = choose(&rules, &modules)?;
    for file in &chosen {
        let place = target.join(file);
        fs::create_dir_all(place.parent().context("A module has no folder.")?)?;
        fs::copy(source.join(file), &place)?;
    }
    // Modules are stored unpacked: the file system compresses them better, and init needs no unpacker.
    host::run_quietly(Command::new("xz").args(["-d", "-q"]).args(&chosen).current_dir(&target))?;
    host::run_quietly(host::system_tool("depmod").arg("-b").arg(tree.join("usr")).arg(&release))?;
    fs::write(tree.join("etc/modules"), rules.load.join("\n") + "\n")?;
    Ok(())
}

/// File name and content of the modules in the initramfs. The names begin with a number, so that they sort in the order
/// of loading.
pub fn boot_modules(host: &Host, debian: &DebianTree) -> Result<Vec<(String, Vec<u8>)>> {
    let source = debian.modules()?;
    let modules = Modules::open(&source)?;
    let rules = read_module_rules(host)?;
    let files = modules.load_order(rules.boot.iter().map(String::as_str))?;
    let unpack = |(number, file): (usize, &&str)| {
        let path = source.join(file);
        let output = Command::new("xz").args(["-d", "-c"]).arg(&path).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{} cannot be unpacked.", path.display());
        Ok((format!("{number:02}-{}.ko", module_name(file)), output.stdout))
    };
    files.iter().enumerate().map(unpack).collect()
}

fn read_module_rules(host: &Host) -> Result<ModuleRules> {
    let path = host.repository().join("image/modules");
    parse(&fs::read_to_string(&path).with_context(|| format!("Cannot read {}.", path.display()))?)
}

fn parse(text: &str) -> Result<ModuleRules> {
    let mut rules = ModuleRules::default();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty()) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["boot", name] => rules.boot.push(name.into()),
            ["load", name] => rules.load.push(name.into()),
            ["+", pattern] => rules.select.push((true, pattern.into())),
            ["-", pattern] => rules.select.push((false, pattern.into())),
            _ => anyhow::bail!("`{line}` in image/modules is no rule."),
        }
    }
    Ok(rules)
}

/// Files of all modules that the rules choose, and of all modules that these depend on.
fn choose(rules: &ModuleRules, modules: &Modules) -> Result<BTreeSet<String>> {
    for (_, pattern) in &rules.select {
        let known = modules.paths().any(|path| Pattern(pattern).matches(path));
        ensure!(known, "`{pattern}` in image/modules names no module of this kernel.");
    }
    let mut chosen = BTreeSet::new();
    for module in modules.files() {
        let path = module_path(&module.file);
        let last = rules.select.iter().rev().find(|(_, pattern)| Pattern(pattern).matches(path));
        if last.is_some_and(|(take, _)| *take) {
            chosen.insert(module.file.clone());
            chosen.extend(module.needs.iter().cloned());
        }
    }
    let named = rules.load.iter().chain(&rules.boot).map(String::as_str);
    chosen.extend(modules.load_order(named)?.into_iter().map(str::to_owned));
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::IndexTexts;

    #[test]
    fn the_last_match_decides_dependencies_are_added_and_built_in_modules_add_no_file() {
        let rules = parse("boot loop\nload a\nload b\n+ fs/**   # all\n- fs/old/**\n+ fs/built/*\n").expect("rules");
        let modules = Modules::parse(IndexTexts {
            dependencies: "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\n\
             kernel/fs/old/x-y.ko.xz:\n\
             kernel/lib/crc16.ko.xz:\n\
             kernel/drivers/loop.ko.xz:\n\
             kernel/drivers/a.ko.xz:\n",
            built_in: "kernel/drivers/b.ko\nkernel/fs/built/in.ko\n",
        });
        let chosen = choose(&rules, &modules).expect("chosen");
        let expected = [
            "kernel/drivers/a.ko.xz",
            "kernel/drivers/loop.ko.xz",
            "kernel/fs/ext4/ext4.ko.xz",
            "kernel/lib/crc16.ko.xz",
        ];
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), expected);
        assert!(choose(&parse("+ sound/**").expect("rules"), &modules).is_err());
    }
}
