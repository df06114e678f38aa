//! Tests of the parts of the daemon outside of the API: seed file, shutdown, blessing, reconnection to the core, and the local
//! socket.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dyad_node::{
    bless,
    network::{NetworkFuture, NetworkSetup, NetworkSetupError},
    seed, server,
};
use support::Node;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

fn vm(name: &str) -> dyad_api::CreateVm {
    dyad_api::CreateVm {
        name: name.into(),
        cpus: 1,
        memory_mib: 64,
        firmware: dyad_api::FirmwareView::Bios,
        disks: vec![],
        node: None,
        start: true,
        priority: 50,
        ha: true,
    }
}

#[tokio::test]
async fn a_seed_file_sets_the_node_up_and_is_removed_at_the_next_start() {
    let node = Node::start().await;
    let file = node.dir.path().join("state").join(dyad_wizard::SEED_FILE);
    std::fs::write(&file, support::seed()).unwrap();
    seed::carry_out(node.handle.clone(), false).await.unwrap();
    node.until("setup is finished", |s| s.task.as_ref().is_some_and(|t| t.finished && t.error.is_none())).await;
    assert_eq!(node.core.lock().formatted, ["/dev/vdb"]);
    node.until("the node runs", |s| s.me().is_some()).await;
    seed::carry_out(node.handle.clone(), false).await.unwrap();
    assert!(!file.exists(), "it holds the password");
}

#[tokio::test]
async fn a_bad_seed_file_changes_nothing_and_names_the_key() {
    let node = Node::start().await;
    let file = node.dir.path().join("state").join(dyad_wizard::SEED_FILE);
    std::fs::write(&file, support::seed() + "colour = \"red\"\n").unwrap();
    let problem = seed::carry_out(node.handle.clone(), false).await.expect_err("carried out");
    assert_eq!(problem.error, "The key \"colour\" is unknown: remove it or correct its spelling.");
    assert!(node.core.lock().formatted.is_empty());
    node.until("the problem is shown", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
    let setup = dyad_api::Service::setup(&*node.handle).await.unwrap();
    assert_eq!((setup.phase, setup.task.unwrap().error), (dyad_api::SetupPhase::Blank, Some(problem.clone())));
    let status = dyad_api::Service::status(&*node.handle, false);
    assert_eq!(status.alarms.iter().map(|alarm| &alarm.text).collect::<Vec<_>>(), [&problem.error]);
}

/// A fake network with one management port and one peer link. It records the calls that change it.
#[derive(Default)]
struct RecordingNetwork(Mutex<Vec<&'static str>>);

impl RecordingNetwork {
    fn record(&self, call: &'static str) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        self.0.lock().unwrap().push(call);
        Box::pin(async { Ok(()) })
    }
}

impl NetworkSetup for RecordingNetwork {
    fn ports(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(async { vec!["eth0".into()] })
    }
    fn links(&self) -> NetworkFuture<'_, Vec<dyad_wizard::Link>> {
        Box::pin(async { vec![dyad_wizard::Link { name: "eth1".into(), up: true }] })
    }
    fn addresses(&self) -> NetworkFuture<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
    fn start(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        self.record("start")
    }
    fn apply(&self, _: dyad_wizard::NetworkSettings) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        self.record("apply")
    }
    fn undo(&self) -> NetworkFuture<'_, Result<(), NetworkSetupError>> {
        self.record("undo")
    }
}

#[tokio::test]
async fn a_failed_setup_undoes_its_network_settings_and_a_successful_one_keeps_them() {
    for (code, expected) in [("000000", vec!["apply", "undo"]), ("123456", vec!["apply"])] {
        let network = Arc::new(RecordingNetwork::default());
        let node = Node::with_network(network.clone()).await;
        let join = format!("role = \"join\"\ndisks = \"/dev/vdb\"\nerase = \"erase vdb\"\ncode = \"{code}\"\n");
        let answers = dyad_wizard::from_toml(&join, &support::wizard_disks()).unwrap();
        dyad_api::Service::begin_setup(&*node.handle, answers).await.unwrap();
        node.until("setup has ended", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
        assert_eq!(*network.0.lock().unwrap(), expected, "{code}");
    }
}

#[tokio::test]
async fn setup_ends_as_soon_as_the_watchdog_is_proven() {
    let node = Node::start().await;
    node.core.lock().unproven = true;
    let answers = dyad_wizard::from_toml(&support::seed(), &support::wizard_disks()).unwrap();
    dyad_api::Service::begin_setup(&*node.handle, answers).await.unwrap();
    let finished =
        node.until("setup is finished", |s| s.task.as_ref().is_some_and(|t| t.finished && t.error.is_none()));
    // Without the proof setup would wait for 22 s: four periods of 3 s, and 10 s.
    tokio::time::timeout(Duration::from_secs(15), finished)
        .await
        .expect("setup waited although the watchdog was proven");
}

#[tokio::test]
async fn a_shutdown_ends_the_vms_first_and_then_the_core_hands_over() {
    let node = Node::set_up().await;
    dyad_api::Service::create_vm(&*node.handle, vm("web")).await.unwrap();
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    let shutdown = node.handle.shut_down(node.ended);
    tokio::time::timeout(Duration::from_secs(120), shutdown).await.expect("it did not end");
    let core = node.core.lock();
    assert_eq!((core.leaves, core.running.len()), (1, 0), "the core was told that nothing runs, then to leave");
    assert_eq!(
        core.document.as_ref().unwrap().vms["web"].config.intent,
        dyad_desired::Intent::Running,
        "the other node starts it"
    );
}

#[tokio::test]
async fn a_boot_is_blessed_when_pool_and_peer_work_or_after_a_minute_without_the_peer() {
    let node = Node::set_up().await;
    let good = |up_s| bless::is_good(&node.handle.snapshot(), up_s);
    assert!(good(0), "the peer is heard");
    node.core.change(|s| s.quorum.as_mut().unwrap().peer_alive = false);
    node.until("alone", |s| s.status.as_ref().is_some_and(|s| !s.quorum.as_ref().unwrap().peer_alive)).await;
    assert!(!good(59) && good(60), "without peer and witness, a node with a working pool is good after a minute");
    node.core.change(|s| s.pool = None);
    node.until("no pool", |s| s.status.as_ref().is_some_and(|s| s.pool.is_none())).await;
    assert!(!good(1000));
    let (blessed, proof) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(bless::when_good(node.handle.follow(), move || blessed.send(()).unwrap()));
    let fresh = Node::start().await;
    assert!(bless::is_good(&fresh.handle.snapshot(), 0), "on a blank node it is enough that the core answers");
    assert!(!waiting.is_finished());
    node.core.change(|s| {
        s.quorum.as_mut().unwrap().peer_alive = true;
        s.pool = Some(dyad_control::PoolStatus {
            total_bytes: 1,
            used_bytes: 0,
            disks: vec![dyad_control::PoolDiskStatus { path: "x".into(), bytes: 1, healthy: true, error: None }],
        });
    });
    tokio::time::timeout(Duration::from_secs(120), proof).await.expect("not blessed").unwrap();
}

#[tokio::test]
async fn requests_without_the_core_are_refused_or_read_the_last_document() {
    let node = Node::set_up().await;
    let (one, two) = (node.core.socket.clone(), node.dir.path().join("away.sock"));
    let lost = dyad_node::NodeHandle::status_of(&dyad_node::snapshot::Snapshot::default(), true);
    assert_eq!(lost.sentence, dyad_control::CORE_AWAY);
    assert!(!lost.protected && !lost.missing.is_empty());
    std::fs::rename(&one, &two).unwrap();
    let refused = dyad_api::Service::pairing_code(&*node.handle).await.expect_err("no core, no code");
    assert_eq!((refused.code, refused.error), (dyad_api::ErrorCode::CoreAway, lost.sentence));
    assert!(dyad_api::Service::volumes(&*node.handle).await.is_ok(), "reads work without it");
    std::fs::rename(&two, &one).unwrap();
    assert!(dyad_api::Service::pairing_code(&*node.handle).await.is_ok());
}

#[tokio::test]
async fn the_local_socket_serves_the_same_router_to_root_only() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start().await;
    let path = node.dir.path().join("node.sock");
    let listener = server::local_listener(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    tokio::spawn(server::serve_local(listener, node.site.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("not set up yet"), "{text}");
}

#[tokio::test]
async fn a_websocket_carries_the_serial_line_in_both_directions() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let node = Node::set_up().await;
    dyad_api::Service::create_vm(&*node.handle, vm("web")).await.unwrap();
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    let token =
        dyad_api::Service::login(&*node.handle, dyad_api::Source::Local, support::PASSWORD).await.unwrap().token;
    let path = node.dir.path().join("node.sock");
    tokio::spawn(server::serve_local(server::local_listener(&path).unwrap(), node.site.clone()));
    let mut request = "ws://node/api/v1/vms/web/serial".into_client_request().unwrap();
    request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut line, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(line.next().await.unwrap().unwrap(), Message::Binary("login: ".into()));
    line.send(Message::Text("root".into())).await.unwrap();
    assert_eq!(line.next().await.unwrap().unwrap(), Message::Binary("root".into()));
    drop(Arc::clone(&node.handle));
}
