//! Tests of the real program: it sends requests over TLS to a real `dyad-node` with a fake core.

#[path = "../../node/tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use dyad_node::{certificate, server};
use support::Node;

/// A node that serves HTTPS, and its URL for the program.
struct Fixture {
    node: Node,
    url: String,
}

impl Fixture {
    async fn new(node: Node) -> Self {
        let tls = certificate::server_config(&node.dir.path().join("state")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve_tls(listener, tls, node.site.clone()));
        Fixture { node, url }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyad"));
        command.args(["--node", &self.url, "--config"]).arg(self.node.dir.path().join("config"));
        command.args(arguments).env("DYAD_PASSWORD", support::PASSWORD).env_remove("DYAD_NODE");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs a command that must succeed. Returns its standard output.
    async fn run_ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must be refused. Returns the sentence of the refusal.
    async fn run_refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        errors.lines().last().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.node.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_set_up_from_a_seed_file() {
    let fixture = Fixture::new(Node::start().await).await;
    let bad = fixture.file("bad.toml", support::seed() + "colour = \"red\"\n");
    assert_eq!(
        fixture.run_refused(&["setup", &bad]).await,
        "The key \"colour\" is unknown: remove it or correct its spelling."
    );
    let noise = fixture.file("noise.toml", "role = first");
    assert!(fixture.run_refused(&["setup", &noise]).await.starts_with("The setup cannot be read: "));
    assert!(fixture.node.core.lock().formatted.is_empty());
    let good = fixture.file("good.toml", support::seed());
    let steps = fixture.run_ok(&["setup", &good]).await;
    assert!(steps.contains("format the disks and begin the pair\nopen the pool\n"), "{steps}");
    assert_eq!(fixture.run_refused(&["setup", &good]).await, "This node is already set up: nothing was changed.");
    let status = fixture.run_ok(&["status"]).await;
    assert!(
        status.starts_with("Not protected: no witness is enrolled.\nprotected: no\npair office, node left (A)"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_created_stopped_started_killed_and_deleted_by_commands() {
    let fixture = Fixture::new(Node::set_up().await).await;
    assert_eq!(fixture.run_refused(&["vm", "list"]).await, "Log in first: this needs the administrator's password.");
    fixture.run_ok(&["login"]).await;
    assert_eq!(mode(&fixture.node.dir.path().join("config/nodes.json")), 0o600);

    let image = fixture.file("image.raw", vec![7; 1_500_000]);
    let imported = fixture.run_ok(&["volume", "import", "disk", &image, "--create"]).await;
    assert!(imported.starts_with("1500000 bytes, SHA-256 "), "{imported}");
    assert_eq!(fixture.node.core.lock().content["disk"].len(), 1_500_000);
    let created =
        fixture.run_ok(&["vm", "create", "web", "--memory", "64MiB", "--disk", "disk", "--firmware", "bios"]).await;
    assert!(created.contains("web") && created.contains("64 MiB"), "{created}");
    fixture.node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    assert!(fixture.run_ok(&["vm", "list"]).await.contains("web  running  running  A"));
    assert_eq!(fixture.run_ok(&["vm", "log", "web"]).await, "login: ");
    let json: serde_json::Value = serde_json::from_str(&fixture.run_ok(&["--json", "volume", "list"]).await).unwrap();
    assert_eq!(json[0]["size"], 2_097_152);

    let again = ["vm", "create", "web", "--memory", "64MiB"];
    assert_eq!(fixture.run_refused(&again).await, "A VM named web exists already: choose another name.");
    let huge = fixture.run_refused(&["vm", "create", "huge", "--memory", "1TiB"]).await;
    assert!(huge.starts_with("The VM huge does not fit: all VMs together would need"), "{huge}");
    assert_eq!(
        fixture.run_refused(&["volume", "delete", "disk"]).await,
        "The volume disk is a disk of the VM web: delete that VM first."
    );
    assert_eq!(fixture.run_refused(&["vm", "delete", "web"]).await, "The VM web is meant to run: stop it first.");
    assert_eq!(fixture.run_refused(&["vm", "start", "a/b"]).await, "There is no VM named a/b.");
    let qcow2 = fixture.file("image.qcow2", [b"QFI\xfb".as_slice(), &[0; 5000]].concat());
    assert_eq!(
        fixture.run_refused(&["volume", "import", "disk", &qcow2]).await,
        "The image is a qcow2 image: convert it to a raw image first; nothing was written."
    );
    let refused = fixture.run(&["--json", "vm", "delete", "web"]).await;
    assert!(String::from_utf8(refused.stderr).unwrap().contains("\"code\":\"vm-running\""));

    fixture.run_ok(&["vm", "stop", "web"]).await;
    fixture.node.until("the VM is off", |s| s.vms.is_empty()).await;
    fixture.run_ok(&["vm", "start", "web"]).await;
    fixture.run_ok(&["vm", "kill", "web"]).await;
    fixture.run_ok(&["vm", "delete", "web"]).await;
    fixture.run_ok(&["volume", "delete", "disk"]).await;
    fixture.run_ok(&["logout"]).await;
    assert_eq!(fixture.run_refused(&["vm", "list"]).await, "Log in first: this needs the administrator's password.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_opened_a_witness_enrolled_and_the_timeline_printed() {
    let fixture = Fixture::new(Node::set_up().await).await;
    fixture.run_ok(&["login"]).await;
    assert_eq!(fixture.run_ok(&["pairing-code"]).await, "123456 (for 10 minutes)\n");
    assert_eq!(
        fixture.run_refused(&["witness", "add", "192.0.2.9", "bad"]).await,
        "The witness code is wrong: compare it with the one on the witness and type it again."
    );
    fixture.run_ok(&["witness", "add", "192.0.2.9", "good-code"]).await;
    fixture.node.until("protected", |s| dyad_node::NodeHandle::status_of(s, false).protected).await;
    assert!(fixture.run_ok(&["status"]).await.contains("\nprotected: yes\n"));
    assert_eq!(fixture.run_ok(&["timeline", "--since", "3"]).await.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_test_is_started_unless_the_watchdog_is_proven() {
    let fixture = Fixture::new(Node::set_up().await).await;
    let prove = ["watchdog", "prove"];
    assert_eq!(fixture.run_refused(&prove).await, "Log in first: this needs the administrator's password.");
    fixture.run_ok(&["login"]).await;
    let expected = "The watchdog of this node is proven already: nothing was changed.";
    assert_eq!(fixture.run_refused(&prove).await, expected);
    fixture.node.core.change(|s| {
        s.watchdog = dyad_control::WatchdogStatus::Armed { identity: "i6300esb".into(), timeout_s: 3, proven: false };
    });
    assert!(fixture.run_ok(&prove).await.starts_with("The node restarts now: "));
    assert_eq!(fixture.node.core.lock().proofs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_refused_until_the_old_one_is_forgotten() {
    let mut fixture = Fixture::new(Node::start().await).await;
    let first = fixture.run(&["status"]).await;
    assert!(String::from_utf8(first.stderr).unwrap().starts_with("First contact with 127.0.0.1:"));
    assert!(fixture.run(&["status"]).await.stderr.is_empty(), "it is remembered");
    // The first node's entry in the store gets the address of another node: the certificate at this address has changed.
    let other = Fixture::new(Node::start().await).await;
    let file = fixture.node.dir.path().join("config/nodes.json");
    let known = std::fs::read_to_string(&file).unwrap();
    let renamed = known.replace(fixture.url.trim_start_matches("https://"), other.url.trim_start_matches("https://"));
    std::fs::write(&file, renamed).unwrap();
    fixture.url.clone_from(&other.url);
    assert!(fixture.run_refused(&["status"]).await.contains("has changed: if the node was erased and set up again"));
    fixture.run_ok(&["forget"]).await;
    fixture.run_ok(&["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_is_a_usage_error() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_dyad")).args(["vm", "create", "x", "--memory", "lots"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("write it like 10GiB or 512MiB"));
    let odd = ["vm", "create", "x", "--memory", "1500K"];
    let output = Command::new(env!("CARGO_BIN_EXE_dyad")).args(odd).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("\"1500K\" is not a whole number of MiB"));
}
