//! The daemon as a process: killed, restarted, restored from a copy, and its command line.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{Pair, TEST_TIMEOUT};
use dyad_quorum::{ReplyBody, VoteRefusal};
use dyad_types::NodeId;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dyad-witness");

struct Daemon {
    child: Child,
    address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(directory: &Path, listen: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["run", "--listen", listen, "--dir"])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").expect("the daemon says where it listens").trim().to_owned();
        Self { child, address }
    }

    /// SIGKILL, so that the daemon writes nothing before it ends.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn command(arguments: &[&str], directory: &Path) -> Output {
    Command::new(PROGRAM).args(arguments).arg("--dir").arg(directory).output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn code(directory: &Path) -> String {
    text(command(&["code"], directory)).lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn votes_survive_a_killed_daemon_and_the_client_reconnects() {
    let directory = tempfile::tempdir().unwrap();
    let pair = Pair::new();
    let daemon = Daemon::start(directory.path(), "[::1]:0");
    let address = daemon.address.clone();
    let enrolment = pair.enrol(&address, &code(directory.path())).await.unwrap();
    let base = pair.both(&enrolment);
    let mut a = pair.client(&pair.a, &address, enrolment.fingerprint);
    let voted = a.ask(&pair.solo(NodeId::A, &base), TEST_TIMEOUT).await.unwrap();
    assert!(matches!(voted.body, ReplyBody::Accepted(..)));

    daemon.kill();
    assert!(a.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap_err().is_unreachable());
    let _daemon = Daemon::start(directory.path(), &address);
    assert_eq!(a.ask(&pair.solo(NodeId::A, &base), TEST_TIMEOUT).await.unwrap(), voted);
    let mut b = pair.client(&pair.b, &address, enrolment.fingerprint);
    let late = b.ask(&pair.solo(NodeId::B, &base), TEST_TIMEOUT).await.unwrap();
    // The witness has accepted A's value. B's ballot is higher (same round, later node), so the witness answers B, but
    // with A's value.
    assert!(matches!(&late.body, ReplyBody::Accepted(_, value) if value.lead == NodeId::A), "{late:?}");
}

#[tokio::test]
async fn a_restored_copy_does_not_vote() {
    let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pair = Pair::new();
    let daemon = Daemon::start(original.path(), "[::1]:0");
    let enrolment = pair.enrol(&daemon.address, &code(original.path())).await.unwrap();
    let base = pair.both(&enrolment);
    let mut a = pair.client(&pair.a, &daemon.address, enrolment.fingerprint);
    let before = a.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap();
    daemon.kill();
    for name in ["data.mdb", "identity.crt", "identity.key"] {
        std::fs::copy(original.path().join(name), copy.path().join(name)).unwrap();
    }
    let restored = Daemon::start(copy.path(), "[::1]:0");
    let mut b = pair.client(&pair.b, &restored.address, enrolment.fingerprint);
    let answer = b.ask(&pair.solo(NodeId::B, &base), TEST_TIMEOUT).await.unwrap();
    assert_eq!(answer.body, ReplyBody::Refused(VoteRefusal::NotAVoter));
    assert_ne!((answer.witness, answer.incarnation), (before.witness, before.incarnation));
    // Once a configuration admits the new incarnation, the copy votes.
    let mut admitted = dyad_quorum::Config { epoch: base.epoch.next(), witness: answer.witness, ..base };
    admitted.incarnations[2] = answer.incarnation;
    let answer = b.ask(&pair.solo(NodeId::B, &admitted), TEST_TIMEOUT).await.unwrap();
    assert!(matches!(answer.body, ReplyBody::Accepted(..)), "{answer:?}");
}

#[tokio::test]
async fn the_command_line_lists_and_forgets() {
    let directory = tempfile::tempdir().unwrap();
    let pair = Pair::new();
    let daemon = Daemon::start(directory.path(), "[::1]:0");
    let shown = text(command(&["code"], directory.path()));
    assert!(shown.contains("within 10 minutes") && shown.contains("Fingerprint"));
    let enrolment = pair.enrol(&daemon.address, shown.lines().next().unwrap()).await.unwrap();
    assert!(shown.contains(&enrolment.fingerprint.to_string()));
    let id = pair.id.to_string();
    let listed = text(command(&["list"], directory.path()));
    assert!(listed.starts_with(&format!("{id}  AB  epoch 0")) && listed.contains("not admitted"), "{listed}");
    let mut a = pair.client(&pair.a, &daemon.address, enrolment.fingerprint);
    a.ask(&pair.learn(&pair.both(&enrolment)), TEST_TIMEOUT).await.unwrap();
    let listed = text(command(&["list"], directory.path()));
    assert!(listed.contains("epoch 3") && listed.contains("votes") && listed.trim().ends_with("office"), "{listed}");
    text(command(&["forget", &id], directory.path()));
    assert_eq!(text(command(&["list"], directory.path())), "");
    let again = command(&["forget", &id], directory.path());
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("there is no pair"));
}

#[test]
fn a_second_daemon_is_refused_and_a_command_without_a_daemon_fails_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let without_daemon = command(&["list"], directory.path());
    assert!(String::from_utf8_lossy(&without_daemon.stderr).contains("is 'dyad-witness run' running"));
    let _daemon = Daemon::start(directory.path(), "[::1]:0");
    let second = command(&["run", "--listen", "[::1]:0"], directory.path());
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another dyad-witness already uses"));
}

#[test]
fn a_dry_run_prints_the_steps_and_install_writes_into_another_file_tree() {
    let root = tempfile::tempdir().unwrap();
    let install = |extra: &[&str]| {
        text(Command::new(PROGRAM).args(["install", "--root"]).arg(root.path()).args(extra).output().unwrap())
    };
    assert!(install(&["--dry-run"]).contains("etc/systemd/system/dyad-witness.service"));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    install(&["--listen", "192.0.2.1:7403"]);
    let installed = root.path().join("usr/local/bin/dyad-witness");
    assert_eq!(std::fs::read(installed).unwrap(), std::fs::read(PROGRAM).unwrap());
}
