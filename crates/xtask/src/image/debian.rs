//! Downloads and unpacks packages of Debian 13 from the mirrors that this machine's apt uses.

use crate::host::{self, Host};
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Code name of Debian 13, as in package sources.
pub const RELEASE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Key file of Debian 13. If it is missing, the keyring of this machine is older than that release.
const RELEASE_KEY_FILE: &str = "/usr/share/keyrings/debian-archive-trixie-stable.gpg";
/// File in the tree that lists all unpacked packages with their SHA-256; the hook in [`fetch`] writes it.
const PACKAGE_LIST_FILE: &str = "packages.sha256";

/// A tree of unpacked packages.
#[derive(Debug)]
pub struct DebianTree {
    root: PathBuf,
}

/// A package that was unpacked into the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub name: String,
    /// Debian version with its epoch, such as `1:2025.02-8`; in file names the colon is `%3a`.
    pub version: String,
    /// SHA-256 of the package file, in hexadecimal.
    pub sha256: String,
}

/// Downloads and unpacks the packages of `image/packages` and their dependencies, once for each content of that list:
/// the tree is kept in `target/cache`. Remove that folder to get newer versions.
pub fn fetch(host: &Host) -> Result<DebianTree> {
    let path = host.repository().join("image/packages");
    let list = fs::read_to_string(&path).with_context(|| format!("Cannot read {}.", path.display()))?;
    let names = package_names(&list);
    let key = hex(&Sha256::digest(format!("{RELEASE} {}", names.join(" "))));
    let root = host.cache()?.join(format!("debian-{}", &key[..16]));
    if !root.exists() {
        ensure!(
            Path::new(RELEASE_KEY_FILE).exists(),
            "This machine does not know the keys of Debian 13. Run `apt-get update && apt-get install debian-archive-keyring`."
        );
        host::step(&format!("Fetching {} packages of Debian 13 and what they need", names.len()));
        let fresh = root.with_extension("part");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        let hook = format!(r#"cd "$1/var/cache/apt/archives" && sha256sum *.deb > "$1/{PACKAGE_LIST_FILE}""#);
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--quiet", "--variant=extract", "--architectures=amd64", "--skip=essential/unlink"])
            // Unpacking needs neither root nor user namespaces; each of the other modes needs one of them.
            .args((!nix::unistd::geteuid().is_root()).then_some("--mode=chrootless"))
            .arg(format!("--include={}", names.join(",")))
            .arg(format!("--extract-hook={hook}"))
            .arg(RELEASE)
            .arg(&fresh)
            .args(sources()?);
        host::run(&mut bootstrap)
            .context("Debian's packages could not be fetched. Check the network and try again.")?;
        // depmod writes the dependencies of the kernel modules, which are fixed for these packages.
        let release = DebianTree { root: fresh.clone() }.kernel_release()?;
        host::run_quietly(host::system_tool("depmod").arg("-b").arg(fresh.join("usr")).arg(release))?;
        fs::rename(&fresh, &root)?;
    }
    Ok(DebianTree { root })
}

impl DebianTree {
    /// Root folder of the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All packages in the tree, sorted by name.
    pub fn packages(&self) -> Result<Vec<Package>> {
        let text = fs::read_to_string(self.root.join(PACKAGE_LIST_FILE))
            .context("The list of packages is missing in the cache.")?;
        let mut packages: Vec<_> = text.lines().filter_map(parse_package).collect();
        packages.sort();
        Ok(packages)
    }

    /// Release of the kernel in the tree, such as `6.12.0-amd64`.
    pub fn kernel_release(&self) -> Result<String> {
        let folder = self.root.join("usr/lib/modules");
        let entry = fs::read_dir(&folder)?.next().with_context(|| format!("{} is empty.", folder.display()))??;
        Ok(entry.file_name().to_string_lossy().into_owned())
    }

    /// Path of the kernel image.
    pub fn kernel(&self) -> Result<PathBuf> {
        Ok(self.root.join(format!("boot/vmlinuz-{}", self.kernel_release()?)))
    }

    /// Path of the modules folder; the modules in it are compressed with xz.
    pub fn modules(&self) -> Result<PathBuf> {
        Ok(self.root.join("usr/lib/modules").join(self.kernel_release()?))
    }

    /// Path of the boot loader, systemd-boot.
    pub fn boot_loader(&self) -> PathBuf {
        self.root.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    }

    /// Path of systemd-stub, to which kernel and initramfs are added as sections.
    pub fn stub(&self) -> PathBuf {
        self.root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    }
}

/// Package sources of [`RELEASE`] on the mirrors that this machine's apt uses; with security updates if apt has a
/// mirror for them.
pub fn sources() -> Result<Vec<String>> {
    let format = "$(LABEL)|$(COMPONENT)|$(REPO_URI)";
    let text =
        host::output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let mut lines = Vec::new();
    for (label, suites) in [
        ("Debian", vec![RELEASE.to_owned(), format!("{RELEASE}-updates")]),
        ("Debian-Security", vec![format!("{RELEASE}-security")]),
    ] {
        let uri = text.lines().find_map(|line| line.strip_prefix(&format!("{label}|main|")));
        for suite in suites {
            lines.extend(uri.map(|uri| format!("deb [signed-by={KEYRING}] {uri} {suite} main")));
        }
    }
    ensure!(
        lines.iter().any(|line| line.ends_with(&format!("{RELEASE} main"))),
        "apt knows no Debian mirror on this machine. Add one to /etc/apt and run `apt-get update`."
    );
    Ok(lines)
}

fn package_names(list: &str) -> Vec<&str> {
    list.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|name| !name.is_empty()).collect()
}

/// Parses a line `HASH  NAME_VERSION_ARCHITECTURE.deb`.
fn parse_package(line: &str) -> Option<Package> {
    let (sha256, file) = line.split_once("  ")?;
    let mut fields = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (fields.next()?, fields.next()?);
    Some(Package { name: name.into(), version: version.replace("%3a", ":"), sha256: sha256.into() })
}

/// Writes bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_their_file_names() {
        let expected = Package { name: "ovmf".into(), version: "1:2025.02-8".into(), sha256: "ab".into() };
        assert_eq!(parse_package("ab  ovmf_1%3a2025.02-8_all.deb"), Some(expected));
        assert_eq!(parse_package("ab  lock"), None);
    }

    #[test]
    fn the_list_may_have_comments() {
        assert_eq!(package_names("# head\n\novmf   # firmware\nseabios\n"), ["ovmf", "seabios"]);
    }
}
