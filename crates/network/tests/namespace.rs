//! Applies plans in network namespaces of their own, one for each test. Needs root.

use dyad_network::{FixedAddress, HostNetwork, NetworkError, NetworkPlan, Ports, Substitutes};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A node in a network namespace, with the ports `eth0` and `eth1`, which are the two ends of one cable.
struct Node {
    folder: tempfile::TempDir,
    network: HostNetwork,
}

impl Node {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
        tokio::spawn(connection);
        handle.link().add(rtnetlink::LinkVeth::new("eth0", "eth1").build()).execute().await.expect("a cable");
        for name in ["eth0", "eth1"] {
            let class = folder.path().join("class").join(name);
            fs::create_dir_all(class.join("device")).expect("sysfs");
            fs::write(class.join("flags"), "0x1003").expect("sysfs");
            fs::write(class.join("address"), "52:54:00:00:00:01").expect("sysfs");
        }
        // The DHCP client is a script that records its arguments in the file `calls` and keeps running.
        let client = folder.path().join("dhcpcd");
        let calls = folder.path().join("calls");
        let script = "#!/bin/sh\ncase \"$*\" in *--exit*) exit;; esac\n";
        fs::write(&client, format!("{script}echo \"$@\" >> {}\nexec sleep 1000\n", calls.display())).expect("a client");
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).expect("a client");
        let ports = Ports::with_class_folder(&folder.path().join("class"));
        let resolver = folder.path().join("resolv.conf");
        let network = HostNetwork::open().expect("opened").with_substitutes(Substitutes { ports, client, resolver });
        Self { folder, network }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The addresses of a port, without the IPv6 link-local ones of the kernel.
    async fn addresses(&self, port: &str) -> Vec<String> {
        let all = self.network.links().addresses().await.expect("listed");
        let ours = all.into_iter().filter(|a| a.port == port && !(a.address.is_ipv6() && a.is_link_local()));
        ours.map(|a| format!("{}/{}", a.address, a.prefix)).collect()
    }

    /// Waits until `done`, at most 20 s.
    async fn until(&self, what: &str, done: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done().await {
            assert!(Instant::now() < deadline, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs a test in a new network namespace. A single-threaded runtime keeps all of it on this thread.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; run as root");
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn fixed(address: &str, gateway: Option<&str>) -> NetworkPlan {
    let fixed = FixedAddress { address: ip(address), prefix: 24, gateway: gateway.map(ip), dns: vec![ip("10.0.0.53")] };
    NetworkPlan { management: "eth0".into(), fixed: Some(fixed), peer_links: vec![] }
}

#[test]
fn a_fixed_address_is_the_ports_only_address_and_can_be_changed() {
    isolated(|| async {
        let node = Node::new().await;
        for _ in 0..2 {
            node.network.apply(&fixed("10.0.0.2", Some("10.0.0.1"))).await.expect("applied");
            assert_eq!(node.addresses("eth0").await, ["10.0.0.2/24"]);
        }
        assert_eq!(node.file("resolv.conf"), "nameserver 10.0.0.53\n");
        let routes = fs::read_to_string("/proc/thread-self/net/route").expect("routes");
        assert!(routes.lines().any(|line| line.starts_with("eth0\t00000000\t0100000A")), "{routes}");
        node.network.apply(&fixed("10.0.0.3", None)).await.expect("applied");
        assert_eq!(node.addresses("eth0").await, ["10.0.0.3/24"]);
        assert_eq!(node.network.likely_management().await.expect("known").as_deref(), Some("eth0"));
    });
}

#[test]
fn a_peer_link_is_up_and_has_only_its_ipv6_link_local_address() {
    isolated(|| async {
        let node = Node::new().await;
        node.network.links().add_address("eth1", ip("192.168.9.9"), 24).await.expect("an old address");
        node.network.apply(&fixed("10.0.0.2", None)).await.expect("applied");
        assert!(node.addresses("eth1").await.is_empty());
        node.until("a link-local address", async || {
            let all = node.network.links().addresses().await.expect("listed");
            all.iter().any(|a| a.port == "eth1" && a.is_link_local() && a.address.is_ipv6())
        })
        .await;
    });
}

#[test]
fn a_plan_with_dhcp_keeps_the_client_of_the_management_port_and_ends_the_others() {
    isolated(|| async {
        let node = Node::new().await;
        node.network.discover().await.expect("started");
        node.until("a client on each port", async || node.file("calls").lines().count() == 2).await;
        let plan = NetworkPlan { management: "eth1".into(), fixed: None, peer_links: vec![] };
        node.network.apply(&plan).await.expect("applied");
        assert_eq!(node.network.peer_links(&plan), ["eth0"]);
        node.network.apply(&plan).await.expect("applied");
        let calls = node.file("calls");
        assert_eq!(calls.lines().filter(|call| call.ends_with("eth1")).count(), 1, "{calls}");
        node.network.apply(&fixed("10.0.0.2", None)).await.expect("applied");
        assert_eq!(node.file("calls"), calls, "a client was started for a fixed address");
    });
}

#[test]
fn a_plan_that_is_taken_back_leaves_no_fixed_address_and_a_dhcp_client_on_every_port() {
    isolated(|| async {
        let node = Node::new().await;
        node.network.apply(&fixed("10.0.0.2", Some("10.0.0.1"))).await.expect("applied");
        node.network.return_to_discovery().await.expect("taken back");
        assert!(node.addresses("eth0").await.is_empty());
        node.until("a client on each port", async || node.file("calls").lines().count() == 2).await;
        node.network.return_to_discovery().await.expect("taken back");
        assert_eq!(node.file("calls").lines().count(), 2, "a second call starts no second client");
    });
}

#[test]
fn an_impossible_plan_keeps_the_old_address() {
    isolated(|| async {
        let node = Node::new().await;
        node.network.apply(&fixed("10.0.0.2", None)).await.expect("applied");
        let absent = NetworkPlan { management: "eth7".into(), fixed: None, peer_links: vec![] };
        assert!(matches!(node.network.apply(&absent).await, Err(NetworkError::NoPort(port)) if port == "eth7"));
        let mixed = fixed("10.0.0.9", Some("fe80::1"));
        assert!(matches!(node.network.apply(&mixed).await, Err(NetworkError::InvalidAddress { .. })));
        assert_eq!(node.addresses("eth0").await, ["10.0.0.2/24"]);
        let missing = HostNetwork::open().expect("opened").with_substitutes(Substitutes {
            ports: Ports::with_class_folder(Path::new("/nonexistent")),
            client: "/nonexistent".into(),
            resolver: "/nonexistent".into(),
        });
        let plan = NetworkPlan { management: "eth1".into(), fixed: None, peer_links: vec![] };
        assert!(matches!(missing.apply(&plan).await, Err(NetworkError::Dhcp { .. })));
    });
}
