//! Installation of the witness as a service: the program and one systemd unit.
//!
//! systemd creates a user for the service, and [`STATE_DIRECTORY`], which only this user can read (`DynamicUser`,
//! `StateDirectory`). To uninstall, disable the service and remove the files that [`InstallPlan::describe`] names, and
//! that directory.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The service's directory, as [`crate::server::WitnessConfig::directory`].
pub const STATE_DIRECTORY: &str = "/var/lib/dyad-witness";

/// Path of the installed program, below the root of the file tree.
const PROGRAM: &str = "usr/local/bin/dyad-witness";
/// Path of the unit file, below the root.
const UNIT: &str = "etc/systemd/system/dyad-witness.service";
/// Path of the link by which systemd starts the unit at boot, below the root. Made only in another system's file tree.
const UNIT_LINK: &str = "etc/systemd/system/multi-user.target.wants/dyad-witness.service";

/// The errors of an installation.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file cannot be read or written.
    #[error("{} cannot be written; run this as root", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The system does not run systemd.
    #[error(
        "this system does not run systemd; start '/usr/local/bin/dyad-witness run --dir {STATE_DIRECTORY}' with the service manager it has"
    )]
    NoSystemd,
    /// A `systemctl` command failed.
    #[error("'systemctl {arguments}' failed; see 'journalctl -u dyad-witness'")]
    Systemctl { arguments: String },
}

/// The parameters of an installation.
#[derive(Debug, Clone)]
pub struct InstallPlan {
    /// The file tree to install into: `/`, or the tree of another system, in which case the service is not started.
    pub root: PathBuf,
    /// The program to copy.
    pub program: PathBuf,
    /// The address on which the service listens.
    pub listen: SocketAddr,
}

impl InstallPlan {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether the file tree is that of the running system.
    fn is_running_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The content of the unit file.
    #[must_use]
    pub fn unit(&self) -> String {
        format!(
            "[Unit]\n\
             Description=Dyad witness: the third vote of pairs\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             ExecStart=/{PROGRAM} run --dir {STATE_DIRECTORY} --listen {}\n\
             Restart=always\n\
             RestartSec=1\n\
             DynamicUser=yes\n\
             StateDirectory=dyad-witness\n\
             StateDirectoryMode=0700\n\
             LimitNOFILE=65536\n\
             ProtectSystem=strict\n\
             ProtectHome=yes\n\
             PrivateDevices=yes\n\
             ProtectKernelTunables=yes\n\
             ProtectControlGroups=yes\n\
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
             MemoryDenyWriteExecute=yes\n\
             NoNewPrivileges=yes\n\
             CapabilityBoundingSet=\n\
             SystemCallFilter=@system-service\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            self.listen
        )
    }

    /// The steps of [`Self::carry_out`], one line for each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut steps = vec![
            format!("copy {} to {}", self.program.display(), self.at(PROGRAM).display()),
            format!("write {}", self.at(UNIT).display()),
        ];
        if self.is_running_system() {
            steps.push("systemctl daemon-reload".into());
            steps.push("systemctl enable dyad-witness.service".into());
            steps.push("systemctl restart dyad-witness.service".into());
        } else {
            steps.push(format!("link {}", self.at(UNIT_LINK).display()));
        }
        steps
    }

    /// Installs or updates the service, and starts it if the file tree is that of the running system.
    ///
    /// # Errors
    /// The first step that failed, as an [`InstallError`].
    pub fn carry_out(&self) -> Result<(), InstallError> {
        let program = self.at(PROGRAM);
        let image = fs::read(&self.program).map_err(|source| file_error(&self.program, source))?;
        replace(&program, &image, 0o755)?;
        replace(&self.at(UNIT), self.unit().as_bytes(), 0o644)?;
        if !self.is_running_system() {
            let link = self.at(UNIT_LINK);
            make_parent(&link)?;
            let _ = fs::remove_file(&link);
            return symlink(format!("/{UNIT}"), &link).map_err(|source| file_error(&link, source));
        }
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(InstallError::NoSystemd);
        }
        systemctl(["daemon-reload"])?;
        systemctl(["enable", "dyad-witness.service"])?;
        systemctl(["restart", "dyad-witness.service"])
    }
}

fn file_error(path: &Path, source: std::io::Error) -> InstallError {
    InstallError::File { path: path.to_owned(), source }
}

fn make_parent(path: &Path) -> Result<(), InstallError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|source| file_error(parent, source))
}

/// Replaces a file, which may be a running program, and creates its directory if it does not exist.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    make_parent(path)?;
    dyad_atomic_file::replace_with_mode(path, content, mode).map_err(|source| file_error(path, source))
}

fn systemctl<const N: usize>(arguments: [&str; N]) -> Result<(), InstallError> {
    let done = Command::new("systemctl").args(arguments.map(OsStr::new)).status();
    if done.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(InstallError::Systemctl { arguments: arguments.join(" ") })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn installing_into_another_tree_writes_program_unit_and_link() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("source");
        fs::write(&program, "first").unwrap();
        let plan = InstallPlan { root: root.path().join("tree"), program, listen: "[::]:7403".parse().unwrap() };
        assert_eq!(plan.describe().len(), 3);
        assert!(!plan.root.exists(), "describing does nothing");
        plan.carry_out().unwrap();
        fs::write(&plan.program, "second").unwrap();
        plan.carry_out().unwrap();
        let program = plan.root.join(PROGRAM);
        assert_eq!(fs::read_to_string(&program).unwrap(), "second");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        let unit = fs::read_to_string(plan.root.join(UNIT)).unwrap();
        assert!(
            unit.contains("ExecStart=/usr/local/bin/dyad-witness run --dir /var/lib/dyad-witness --listen [::]:7403\n")
        );
        assert_eq!(
            fs::read_link(plan.root.join(UNIT_LINK)).unwrap(),
            Path::new("/etc/systemd/system/dyad-witness.service")
        );
    }

    #[test]
    fn the_error_names_the_path_that_cannot_be_written() {
        let root = tempfile::tempdir().unwrap();
        let blocked = root.path().join("file");
        fs::write(&blocked, "").unwrap();
        let plan = InstallPlan { root: blocked.clone(), program: blocked, listen: "[::]:7403".parse().unwrap() };
        let error = plan.carry_out().unwrap_err();
        assert!(matches!(&error, InstallError::File { path, .. } if path.ends_with("usr/local/bin")), "{error}");
    }
}
