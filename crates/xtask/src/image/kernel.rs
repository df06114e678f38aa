//! The kernel modules that `image/modules` chooses.

use super::debian::Debian;
use super::glob;
use crate::host::{self, Host};
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// `image/modules`, read.
#[derive(Debug, Default)]
struct Rules {
    /// Modules of the initramfs, in the order of loading.
    boot: Vec<String>,
    /// Modules that every node loads.
    load: Vec<String>,
    /// Rules: take or leave a pattern.
    select: Vec<(bool, String)>,
}

/// Module → its file below the modules folder, and the files it needs, the most basic last.
type Needs = BTreeMap<String, (String, Vec<String>)>;

/// Puts the chosen modules, unpacked and indexed, below `tree`, and the list of those to load always.
pub fn install(host: &Host, debian: &Debian, tree: &Path) -> Result<()> {
    let rules = rules(host)?;
    let source = debian.modules()?;
    let needs = needs(&source)?;
    let release = debian.kernel_release()?;
    let target = tree.join("usr/lib/modules").join(&release);
    fs::create_dir_all(&target)?;
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(source.join(name), target.join(name)).with_context(|| format!("The kernel has no {name}."))?;
    }
    let chosen = choose(&rules, &needs)?;
    for file in &chosen {
        let place = target.join(file);
        fs::create_dir_all(place.parent().context("A module has no folder.")?)?;
        fs::copy(source.join(file), &place)?;
    }
    // Modules are stored unpacked: the file system compresses them better, and init needs no unpacker.
    host::run_quietly(Command::new("xz").args(["-d", "-q"]).args(&chosen).current_dir(&target))?;
    host::run_quietly(Command::new("depmod").arg("-b").arg(tree.join("usr")).arg(&release))?;
    fs::write(tree.join("etc/modules"), rules.load.join("\n") + "\n")?;
    Ok(())
}

/// Name and content of the modules of the initramfs; the names sort in the order of loading.
pub fn boot_modules(host: &Host, debian: &Debian) -> Result<Vec<(String, Vec<u8>)>> {
    let source = debian.modules()?;
    let needs = needs(&source)?;
    let mut files: Vec<&String> = Vec::new();
    for name in rules(host)?.boot {
        let (file, basics) = needs.get(&name).with_context(|| format!("The kernel has no module {name}."))?;
        for file in basics.iter().rev().chain([file]) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    let unpack = |(number, file): (usize, &&String)| {
        let path = source.join(file);
        let output = Command::new("xz").args(["-d", "-c"]).arg(&path).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{} cannot be unpacked.", path.display());
        Ok((format!("{number:02}-{}.ko", module_name(file)), output.stdout))
    };
    files.iter().enumerate().map(unpack).collect()
}

fn rules(host: &Host) -> Result<Rules> {
    let path = host.repository().join("image/modules");
    parse(&fs::read_to_string(&path).with_context(|| format!("Cannot read {}.", path.display()))?)
}

fn parse(text: &str) -> Result<Rules> {
    let mut rules = Rules::default();
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

/// The files of all chosen modules and of all they need.
fn choose(rules: &Rules, needs: &Needs) -> Result<BTreeSet<String>> {
    for (_, pattern) in &rules.select {
        let known = needs.values().any(|(file, _)| glob::matches(pattern, module_path(file)));
        ensure!(known, "`{pattern}` in image/modules names no module of this kernel.");
    }
    let mut chosen = BTreeSet::new();
    for (file, basics) in needs.values() {
        let last = rules.select.iter().rev().find(|(_, pattern)| glob::matches(pattern, module_path(file)));
        if last.is_some_and(|(take, _)| *take) {
            chosen.insert(file.clone());
            chosen.extend(basics.iter().cloned());
        }
    }
    for name in rules.load.iter().chain(&rules.boot) {
        let (file, basics) = needs.get(name).with_context(|| format!("The kernel has no module {name}."))?;
        chosen.insert(file.clone());
        chosen.extend(basics.iter().cloned());
    }
    Ok(chosen)
}

fn needs(modules: &Path) -> Result<Needs> {
    let text = fs::read_to_string(modules.join("modules.dep")).context("The kernel's modules have no index.")?;
    let line = |line: &str| {
        let (file, basics) = line.split_once(':')?;
        Some((module_name(file), (file.to_owned(), basics.split_whitespace().map(str::to_owned).collect())))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// `kernel/fs/ext4/ext4.ko.xz` → `fs/ext4/ext4`
fn module_path(file: &str) -> &str {
    let path = file.strip_prefix("kernel/").unwrap_or(file);
    path.split(".ko").next().unwrap_or(path)
}

fn module_name(file: &str) -> String {
    module_path(file).rsplit('/').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_wins_and_needs_come_along() {
        let rules = parse("boot loop\nload a\n+ fs/**   # all\n- fs/old/**\n").expect("rules");
        let row = |file: &str, basics: &[&str]| {
            (module_name(file), (file.to_owned(), basics.iter().map(|s| (*s).to_owned()).collect()))
        };
        let needs: Needs = [
            row("kernel/fs/ext4/ext4.ko.xz", &["kernel/lib/crc16.ko.xz"]),
            row("kernel/fs/old/x-y.ko.xz", &[]),
            row("kernel/lib/crc16.ko.xz", &[]),
            row("kernel/drivers/loop.ko.xz", &[]),
            row("kernel/drivers/a.ko.xz", &[]),
        ]
        .into();
        assert!(needs.contains_key("x_y"));
        let chosen = choose(&rules, &needs).expect("chosen");
        let expected = [
            "kernel/drivers/a.ko.xz",
            "kernel/drivers/loop.ko.xz",
            "kernel/fs/ext4/ext4.ko.xz",
            "kernel/lib/crc16.ko.xz",
        ];
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), expected);
        assert!(choose(&parse("+ sound/**").expect("rules"), &needs).is_err());
    }
}
