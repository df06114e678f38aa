//! Runs apt-get as root and explains its failures.
//!
//! The causes of a failure differ only in apt's messages, so these are read in English (`LC_ALL`). The tests hold the
//! messages of apt 2.6 (Debian 12) and apt 3.0 (Debian 13), which are the same.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::host;

/// Longest wait for a lock that another package manager holds, in seconds: a first automatic update takes minutes.
const LOCK_TIMEOUT_S: u32 = 600;

/// Cause of a failure of apt-get, as far as its messages tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AptFailure {
    /// An earlier dpkg was ended in the middle of its work. apt refuses until `dpkg --configure -a` has completed that
    /// work.
    Interrupted,
    /// Another process holds a lock of dpkg or apt. The text is apt's message about it.
    Locked(String),
    /// Dependencies of an installed package are not installed. apt refuses until they are.
    UnmetDependencies,
    /// dpkg was started and failed on a package.
    Dpkg,
    /// Any other cause: the network, the mirrors, the package lists.
    Other,
}

/// Installs packages. If that fails for another cause than the four named ones, fetches the package lists and tries
/// again.
///
/// # Errors
/// The packages are not installed; the error says what to do.
pub fn install(packages: &[String]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    let outcome = match apt_get(&arguments)? {
        // Lists may be absent or name versions that the mirror no longer has.
        Err(AptFailure::Other) => {
            host::step("Fetching the package lists first");
            match apt_get(&["update"])? {
                Ok(()) => apt_get(&arguments)?,
                Err(failure) => Err(failure),
            }
        }
        outcome => outcome,
    };
    outcome.map_err(|failure| anyhow!("Debian's packages could not be installed. {}", failure.advice(is_root())))
}

impl AptFailure {
    /// Finds the cause in the standard error output of apt-get.
    fn from_stderr(text: &str) -> Self {
        let has = |part: &str| text.contains(part);
        // The line about the holder comes before the line about the lock, and is not always there.
        let lock = text.lines().find(|line| {
            ["Could not get lock ", "Unable to acquire the dpkg frontend lock ", "Unable to lock "]
                .iter()
                .any(|part| line.contains(part))
        });
        if has("dpkg was interrupted") {
            Self::Interrupted
        } else if let Some(line) = lock {
            Self::Locked(line.strip_prefix("E: ").unwrap_or(line).to_owned())
        } else if has("Unmet dependencies") {
            Self::UnmetDependencies
        } else if has("Sub-process /usr/bin/dpkg returned an error code") {
            Self::Dpkg
        } else {
            Self::Other
        }
    }

    /// Sentences that say what is wrong and which command repairs it; `root` = without sudo.
    fn advice(&self, root: bool) -> String {
        let sudo = if root { "" } else { "sudo " };
        match self {
            Self::Interrupted => format!(
                "An earlier run of dpkg on this machine was interrupted and must be finished first: run `{sudo}dpkg \
                 --configure -a`, then the same command again."
            ),
            Self::Locked(line) => format!(
                "Another package manager has been at work for {LOCK_TIMEOUT_S} s (apt says: {line}). Let it finish, or end \
                 it, then run the same command again."
            ),
            Self::UnmetDependencies => format!(
                "A package that is installed on this machine lacks packages that it needs: run `{sudo}apt-get \
                 --fix-broken install`, then the same command again."
            ),
            Self::Dpkg => format!(
                "dpkg failed on one of them; its message is above. Remove the cause, run `{sudo}dpkg --configure -a`, \
                 then the same command again."
            ),
            Self::Other => {
                "apt's message is above. Check the network and /etc/apt, then run the same command again.".to_owned()
            }
        }
    }
}

/// Runs apt-get. If another package manager holds a lock, prints that and waits up to [`LOCK_TIMEOUT_S`].
fn apt_get(arguments: &[&str]) -> Result<Result<(), AptFailure>> {
    let outcome = run_and_classify(command(0).args(arguments))?;
    let Err(AptFailure::Locked(line)) = &outcome else { return Ok(outcome) };
    host::step(&format!("Waiting up to {LOCK_TIMEOUT_S} s for another package manager: {line}"));
    run_and_classify(command(LOCK_TIMEOUT_S).args(arguments))
}

/// An apt-get command that runs as root and asks no question.
fn command(lock_timeout_s: u32) -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND,LC_ALL", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.args(["-qq", "-o", "Acquire::Retries=3", "-o", &format!("DPkg::Lock::Timeout={lock_timeout_s}")]);
    command
}

/// Runs a command to its end, shows its output, and finds the cause in its standard error output if it fails.
fn run_and_classify(command: &mut Command) -> Result<Result<(), AptFailure>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("Cannot start {program}."))?;
    let errors = BufReader::new(child.stderr.take().context("apt-get has no standard error.")?);
    let mut text = String::new();
    for line in errors.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(io::stderr(), "{line}")?;
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait()?;
    if status.code().is_none() {
        bail!("apt-get was ended ({status}).");
    }
    Ok(if status.success() { Ok(()) } else { Err(AptFailure::from_stderr(&text)) })
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from apt 2.6.1 and 3.0.4 with LC_ALL=C.UTF-8; the space at the end is apt's.
    const INTERRUPTED: &str =
        "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n";
    /// A held `lock-frontend`, without a timeout.
    const FRONTEND_LOCK: &str = "\
E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 11 (perl)
E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?
";
    /// The same after a timeout: apt names the holder only while it waits.
    const FRONTEND_LOCK_TIMEOUT: &str =
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n";
    const DPKG_LOCK: &str =
        "E: Unable to lock the administration directory (/var/lib/dpkg/), is another process using it?\n";
    const LISTS_LOCK: &str = "\
E: Could not get lock /var/lib/apt/lists/lock. It is held by process 52 (perl)
E: Unable to lock directory /var/lib/apt/lists/
";
    const HALF_CONFIGURED: &str = "E: Sub-process /usr/bin/dpkg returned an error code (1)\n";
    const UNMET: &str = "\
E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).
E: The following information from --solver 3.0 may provide additional context:
   Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).
";
    const UNKNOWN_PACKAGE: &str = "E: Unable to locate package dyad-moon\n";
    const NO_NETWORK: &str = "\
W: Failed to fetch http://mirror.invalid/debian/dists/trixie/InRelease  Could not resolve 'mirror.invalid'
W: Some index files failed to download. They have been ignored, or old ones used instead.
E: Package 'cpio' has no installation candidate
";

    #[test]
    fn an_interrupted_dpkg_is_named_with_the_command_that_finishes_it() {
        let failure = AptFailure::from_stderr(INTERRUPTED);
        assert_eq!(failure, AptFailure::Interrupted);
        let advice = failure.advice(true);
        assert!(advice.contains("interrupted") && advice.contains("run `dpkg --configure -a`"), "{advice}");
        assert!(!advice.contains("network"), "{advice}");
        assert!(failure.advice(false).contains("`sudo dpkg --configure -a`"));
    }

    #[test]
    fn a_held_lock_is_named_with_its_holder_if_apt_tells_it() {
        for (text, line) in [
            (FRONTEND_LOCK, "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 11 (perl)"),
            (FRONTEND_LOCK_TIMEOUT, FRONTEND_LOCK_TIMEOUT.trim_start_matches("E: ").trim_end()),
            (DPKG_LOCK, DPKG_LOCK.trim_start_matches("E: ").trim_end()),
            (LISTS_LOCK, "Could not get lock /var/lib/apt/lists/lock. It is held by process 52 (perl)"),
        ] {
            let failure = AptFailure::from_stderr(text);
            assert_eq!(failure, AptFailure::Locked(line.to_owned()));
            let advice = failure.advice(true);
            assert!(advice.contains("Another package manager") && advice.contains(line), "{advice}");
            assert!(!advice.contains("network"), "{advice}");
        }
    }

    #[test]
    fn broken_packages_are_not_reported_as_a_network_failure() {
        assert_eq!(AptFailure::from_stderr(HALF_CONFIGURED), AptFailure::Dpkg);
        assert_eq!(AptFailure::from_stderr(UNMET), AptFailure::UnmetDependencies);
        for text in [UNKNOWN_PACKAGE, NO_NETWORK, ""] {
            assert_eq!(AptFailure::from_stderr(text), AptFailure::Other);
        }
        assert!(AptFailure::Other.advice(true).contains("network"));
    }

    #[test]
    fn the_cause_is_read_from_standard_error_and_ignored_on_success() {
        let shell = |script: &str| run_and_classify(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(shell("echo 'E: dpkg was interrupted' >&2; exit 100"), Err(AptFailure::Interrupted));
        assert_eq!(shell("echo 'W: dpkg was interrupted' >&2"), Ok(()));
        assert_eq!(shell("exit 100"), Err(AptFailure::Other));
    }
}
