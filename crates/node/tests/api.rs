//! Tests of the API with a fake core: each route, its refusals with their sentences, and the check of sessions.

mod support;

use axum::{
    body::Body,
    http::{Request, header},
};
use dyad_api::{Method, Permission, ROUTES, RouteId};
use dyad_control::WatchdogStatus;
use dyad_desired::Intent;
use dyad_node::vms::SupervisorReport;
use dyad_provision::identity::PairAndNodeName;
use dyad_types::{Epoch, NodeId, VolumeId};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::{Node, PASSWORD};
use tower::ServiceExt;

/// Sends a request to the router. Returns the HTTP status, and the body as JSON, or as a JSON string if it is no JSON.
async fn ask(node: &Node, token: Option<&str>, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = node.site.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn send(node: &Node, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    ask(node, Some(token), method, path, body.to_string()).await
}

async fn login(node: &Node) -> String {
    let body = json!({ "password": PASSWORD }).to_string();
    let (status, reply) = ask(node, None, "POST", "/api/v1/login", body).await;
    assert_eq!(status, 200, "{reply}");
    reply["token"].as_str().unwrap().to_owned()
}

fn sentence(reply: &Value) -> &str {
    let text = reply["error"].as_str().unwrap_or_else(|| panic!("no error in {reply}"));
    assert!(text.ends_with('.') && !text.contains('\n'), "{text}");
    assert!(reply["code"].as_str().is_some_and(|code| !code.is_empty()), "{reply}");
    text
}

#[tokio::test]
async fn each_route_has_a_handler_and_its_permission_is_checked() {
    let node = Node::set_up().await;
    for route in ROUTES {
        let method = match route.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        };
        if route.id == RouteId::WatchStatus {
            continue; // Its reply never ends; another test reads it.
        }
        let path = route.path.replace("{name}", "none");
        let (status, reply) = ask(&node, None, method, &path, "{}").await;
        if route.permission == Permission::Session {
            assert_eq!((status, sentence(&reply)), (401, "Log in first: this needs the administrator's password."));
            let (status, _) = ask(&node, Some("wrong"), method, &path, "{}").await;
            assert_eq!(status, 401, "{:?}", route.id);
        } else {
            assert!(status != 404 && status != 405 && status != 401, "{:?}: {status} {reply}", route.id);
        }
    }
    let (status, reply) = ask(&node, None, "GET", "/api/v1/nothing", "").await;
    assert_eq!((status, sentence(&reply)), (404, "The API has no such route: see the OpenAPI document."));
}

#[tokio::test]
async fn a_session_begins_with_the_password_and_ends_with_logout() {
    let node = Node::set_up().await;
    let (status, reply) = ask(&node, None, "POST", "/api/v1/login", r#"{"password":"wrong"}"#).await;
    assert_eq!((status, sentence(&reply)), (401, "The password is wrong."));
    let (status, reply) = ask(&node, None, "POST", "/api/v1/login", "noise").await;
    assert_eq!(status, 422);
    assert!(sentence(&reply).starts_with("The request cannot be read: "));
    let token = login(&node).await;
    assert_eq!(ask(&node, Some(&token), "GET", "/api/v1/vms", "").await, (200, json!([])));
    let (_, open) = ask(&node, None, "GET", "/api/v1/status", "").await;
    assert_eq!(open["details"], Value::Null);
    let (_, full) = ask(&node, Some(&token), "GET", "/api/v1/status", "").await;
    assert_eq!(full["details"]["links"].as_array().unwrap().len(), 2);
    assert_eq!(ask(&node, Some(&token), "POST", "/api/v1/logout", "").await.0, 204);
    assert_eq!(ask(&node, Some(&token), "GET", "/api/v1/vms", "").await.0, 401);
}

#[tokio::test]
async fn login_sets_a_cookie_that_scripts_cannot_read() {
    let node = Node::set_up().await;
    let body = json!({ "password": PASSWORD }).to_string();
    let request = Request::post("/api/v1/login").body(Body::from(body)).unwrap();
    let response = node.site.clone().oneshot(request).await.unwrap();
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("dyad_session=") && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
    let pair = cookie.split(';').next().unwrap();
    let request = Request::get("/api/v1/volumes").header(header::COOKIE, pair).body(Body::empty()).unwrap();
    assert_eq!(node.site.clone().oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_eleventh_wrong_password_in_a_minute_is_refused() {
    let node = Node::set_up().await;
    let mut last = (0, Value::Null);
    for _ in 0..11 {
        last = ask(&node, None, "POST", "/api/v1/login", r#"{"password":"guess"}"#).await;
    }
    assert_eq!((last.0, sentence(&last.1)), (429, "Too many wrong passwords: wait a minute."));
}

#[tokio::test]
async fn setup_with_complete_answers_makes_a_protected_pair() {
    let node = Node::start().await;
    let (_, setup) = ask(&node, None, "GET", "/api/v1/setup", "").await;
    assert_eq!(setup["phase"], "blank");
    assert_eq!(setup["disks"][2]["usable"], false);
    assert!(setup["questions"].as_array().unwrap().len() > 10);
    let (_, offers) = ask(&node, None, "GET", "/api/v1/setup/offers", "").await;
    assert_eq!(offers[0]["pair"], "office");
    let (status, reply) = ask(&node, None, "POST", "/api/v1/login", r#"{"password":"x"}"#).await;
    assert_eq!((status, sentence(&reply)), (409, "This node is not set up yet: answer the wizard first."));

    let first = json!({
        "role": "first", "disks": ["/dev/vdb", "/dev/vdc"], "erase": "erase vdb vdc", "pair": "office",
        "node": "left", "password": PASSWORD, "witness": "192.0.2.9", "witness_code": "good-code",
    });
    let (status, reply) = ask(&node, None, "POST", "/api/v1/setup", first.to_string()).await;
    assert_eq!((status, &reply["phase"]), (202, &json!("setting-up")));
    node.until("setup is finished", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
    let (_, setup) = ask(&node, None, "GET", "/api/v1/setup", "").await;
    assert_eq!(setup["task"]["error"], Value::Null);
    assert!(setup["task"]["steps"].as_array().unwrap().iter().all(|step| step["state"] == "done"), "{setup}");
    assert_eq!(setup["disks"], json!([]), "a node that is set up does not show its disks without a session");
    assert_eq!(node.core.lock().formatted, ["/dev/vdb", "/dev/vdc"]);
    let (_, status) = ask(&node, None, "GET", "/api/v1/status", "").await;
    assert_eq!(status["protected"], true, "{status}");
    let (status, reply) = ask(&node, None, "POST", "/api/v1/setup", first.to_string()).await;
    assert_eq!((status, sentence(&reply)), (409, "This node is already set up: nothing was changed."));
}

#[tokio::test]
async fn refused_answers_have_their_sentences_and_change_nothing() {
    let node = Node::start().await;
    let good = json!({
        "role": "first", "disks": ["/dev/vdb"], "erase": "erase vdb", "pair": "office", "node": "left",
        "password": PASSWORD, "witness": "later",
    });
    let cases = [
        ("colour", json!("red"), "The key \"colour\" is unknown: remove it or correct its spelling."),
        ("erase", json!("yes"), "Nothing was erased: to confirm, type exactly \"erase vdb\"."),
        ("disks", json!(["/dev/sdz"]), "There is no disk /dev/sdz in this node: choose a disk of the list."),
        (
            "disks",
            json!(["/dev/vdd"]),
            "The disk /dev/vdd belongs to the pair \"other\" (node x) and is never overwritten: choose another disk, or erase this one first (dyad erase --disk).",
        ),
        (
            "pair",
            json!("Big Office"),
            "The name \"Big Office\" cannot be used: take 1 to 32 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen.",
        ),
        ("password", json!("short"), "The password must have 8 to 128 characters and no control characters."),
    ];
    for (key, value, expected) in cases {
        let mut answers = good.clone();
        answers[key] = value;
        let (status, reply) = ask(&node, None, "POST", "/api/v1/setup", answers.to_string()).await;
        assert_eq!((status, sentence(&reply)), (422, expected));
    }
    assert!(node.core.lock().formatted.is_empty() && node.handle.snapshot().task.is_none());
}

#[tokio::test]
async fn setup_with_a_wrong_or_expired_code_fails_with_its_sentence() {
    for (code, expected) in [
        ("000000", "The pairing code is wrong: compare it with the one on the first node and type it again."),
        ("999999", "The pairing code has expired: open a new one on the first node."),
    ] {
        let node = Node::start().await;
        let join = json!({ "role": "join", "disks": ["/dev/vdb"], "erase": "erase vdb", "code": code });
        assert_eq!(ask(&node, None, "POST", "/api/v1/setup", join.to_string()).await.0, 202);
        node.until("the task has failed", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
        let (_, setup) = ask(&node, None, "GET", "/api/v1/setup", "").await;
        assert_eq!(sentence(&setup["task"]["error"]), expected);
        assert_eq!((&setup["task"]["steps"][0]["state"], &setup["phase"]), (&json!("failed"), &json!("blank")));
        assert!(node.core.lock().formatted.is_empty());
    }
}

#[tokio::test]
async fn a_witness_that_refuses_leaves_the_node_blank() {
    for (witness, code, expected) in [
        ("192.0.2.9", "bad", "The witness code is wrong: compare it with the one on the witness and type it again."),
        ("192.0.2.9", "expired", "The witness code has expired: print a new one on the witness (dyad-witness code)."),
        (
            "192.0.2.9",
            "used",
            "No witness code is open on the witness, or it was used already: print a new one on the witness (dyad-witness code).",
        ),
        (
            "192.0.2.8",
            "good-code",
            "The witness at 192.0.2.8:7403 cannot be reached; check the address, the cables and the firewall.",
        ),
    ] {
        let node = Node::start().await;
        let mut first = json!({
            "role": "first", "disks": ["/dev/vdb"], "erase": "erase vdb", "pair": "office", "node": "left",
            "password": PASSWORD, "witness": witness, "witness_code": code,
        });
        assert_eq!(ask(&node, None, "POST", "/api/v1/setup", first.to_string()).await.0, 202);
        node.until("the task has failed", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
        let (_, setup) = ask(&node, None, "GET", "/api/v1/setup", "").await;
        assert_eq!(sentence(&setup["task"]["error"]), expected);
        assert_eq!((&setup["task"]["steps"][0]["state"], &setup["phase"]), (&json!("failed"), &json!("blank")));
        assert!(node.core.lock().formatted.is_empty());
        // A second setup, without a witness, then succeeds.
        first["witness"] = json!("later");
        first.as_object_mut().unwrap().remove("witness_code");
        assert_eq!(ask(&node, None, "POST", "/api/v1/setup", first.to_string()).await.0, 202);
        node.until("setup is finished", |s| s.task.as_ref().is_some_and(|t| t.finished && t.error.is_none())).await;
        assert_eq!(node.core.lock().formatted, ["/dev/vdb"]);
    }
}

#[tokio::test]
async fn the_watchdog_test_is_refused_without_a_watchdog_and_after_its_proof() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let prove = async || ask(&node, Some(&token), "POST", "/api/v1/watchdog/prove", "").await;
    let watchdog = async |now: WatchdogStatus| {
        node.core.change(|s| s.watchdog = now.clone());
        node.until("the watchdog is seen", |s| s.status.as_ref().is_some_and(|s| s.watchdog == now)).await;
    };
    let (status, reply) = prove().await;
    let expected = "The watchdog of this node is proven already: nothing was changed.";
    assert_eq!((status, sentence(&reply)), (409, expected));
    watchdog(WatchdogStatus::Absent).await;
    let (status, reply) = prove().await;
    assert_eq!((status, sentence(&reply)), (409, "This node has no watchdog: there is nothing to be proven."));
    assert_eq!(node.core.lock().proofs, 0);
    watchdog(WatchdogStatus::Armed { identity: "i6300esb".into(), timeout_s: 3, proven: false }).await;
    let (_, status) = ask(&node, None, "GET", "/api/v1/status", "").await;
    assert!(status["missing"].to_string().contains("the watchdog of this node has not been proven"), "{status}");
    assert_eq!(prove().await.0, 204);
    assert_eq!(node.core.lock().proofs, 1);
}

#[test]
fn the_core_refuses_a_disk_of_a_pair_as_the_wizard_does() {
    let problem = dyad_wizard::Problem::DiskOfPair { disk: "/dev/vdd".into(), pair: "other".into(), node: "x".into() };
    let refusal = dyad_provision::setup::disk_of_pair("/dev/vdd", PairAndNodeName { pair: "other", node: "x" });
    assert_eq!(
        (dyad_api::ErrorCode::Refused(refusal.code), refusal.sentence),
        ((&problem).into(), problem.to_string())
    );
}

#[tokio::test]
async fn erasing_needs_a_login_and_the_typed_name() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let erase = |token: Option<String>, body: Value| {
        let node = &node;
        async move { ask(node, token.as_deref(), "POST", "/api/v1/erase", body.to_string()).await }
    };
    assert_eq!(erase(None, json!({ "confirm": "left" })).await.0, 401);
    let (status, reply) = erase(Some(token.clone()), json!({ "confirm": "yes" })).await;
    let expected = "Nothing was erased: to erase this node, whose data the other node holds, type exactly \"left\".";
    assert_eq!((status, sentence(&reply)), (422, expected));
    node.core.lock().peer_has_all = false;
    let (status, reply) = erase(Some(token.clone()), json!({ "confirm": "left" })).await;
    let expected = "Nothing was erased: no other node is known to hold the data of the pair office, so all of it may be lost; to erase this node all the same, type exactly \"office/left\".";
    assert_eq!((status, sentence(&reply)), (422, expected));
    node.core.lock().peer_has_all = true;
    assert_eq!(erase(Some(token), json!({ "confirm": "left" })).await.0, 204);

    let blank = Node::start().await;
    let disk = |confirm: &str| json!({ "disk": "vdd", "confirm": confirm }).to_string();
    let (status, reply) = ask(&blank, None, "POST", "/api/v1/setup/erase-disk", disk("")).await;
    let expected = "Nothing was erased: the disk vdd holds data of the node x of the pair other; to erase it, type exactly \"vdd\".";
    assert_eq!((status, sentence(&reply)), (422, expected));
    assert_eq!(ask(&blank, None, "POST", "/api/v1/setup/erase-disk", disk("vdd")).await.0, 204);
}

#[tokio::test]
async fn a_witness_is_enrolled_after_setup() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let enrol = async |address: &str, code: &str| {
        send(&node, &token, "POST", "/api/v1/witness", json!({ "address": address, "code": code })).await
    };
    let (status, reply) = enrol("192.0.2.9", "bad").await;
    let expected = "The witness code is wrong: compare it with the one on the witness and type it again.";
    assert_eq!((status, sentence(&reply)), (422, expected));
    let (_, reply) = enrol("192.0.2.9", "taken").await;
    let expected = "The witness already serves a pair of this id with other keys; if this pair was set up again, remove the old one with 'dyad-witness forget' first.";
    assert_eq!(sentence(&reply), expected);
    let (_, reply) = enrol("later", "good-code").await;
    assert!(sentence(&reply).starts_with("\"later\" is not a witness:"));
    assert_eq!(enrol("192.0.2.9", "good-code").await.0, 204);
    node.until("protected", |s| dyad_node::NodeHandle::status_of(s, false).protected).await;
}

#[tokio::test]
async fn volumes_and_vms_are_created_used_and_deleted_and_wrong_requests_refused() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let post = async |path: &str, body: Value| send(&node, &token, "POST", path, body).await;
    let (status, volume) = post("/api/v1/volumes", json!({ "name": "disk", "size": 1 << 20 })).await;
    assert_eq!((status, &volume["id"], &volume["primary"]), (201, &json!(1), &json!("A")));
    let vm = json!({ "name": "web", "cpus": 1, "memory_mib": 64, "firmware": "bios", "disks": ["disk"] });
    let (status, view) = post("/api/v1/vms", vm.clone()).await;
    assert_eq!((status, &view["node"], &view["intent"]), (201, &json!("A"), &json!("running")), "{view}");
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    let (_, vms) = ask(&node, Some(&token), "GET", "/api/v1/vms", "").await;
    assert_eq!(vms[0]["state"], "running");
    let input = node.supervisor_input.borrow().clone().unwrap();
    assert_eq!(input.sockets[&VolumeId(1)].to_str(), Some("/nowhere/1.sock"));

    let cases = [
        (
            "POST",
            "/api/v1/volumes",
            json!({ "name": "disk", "size": 1 << 20 }),
            409,
            "A volume named disk exists already: choose another name.",
        ),
        (
            "POST",
            "/api/v1/volumes",
            json!({ "name": "d", "size": 5 }),
            422,
            "The size of a volume must be from 1 to 67108864 MiB, and 0 was given.",
        ),
        (
            "POST",
            "/api/v1/volumes",
            json!({ "name": "d", "size": 1 << 20, "colour": 1 }),
            422,
            "The request cannot be read: unknown field `colour`, expected `name` or `size` at line 1 column 9.",
        ),
        (
            "DELETE",
            "/api/v1/volumes/disk",
            json!({}),
            409,
            "The volume disk is a disk of the VM web: delete that VM first.",
        ),
        ("DELETE", "/api/v1/volumes/none", json!({}), 404, "There is no volume named none."),
        ("POST", "/api/v1/vms", vm, 409, "A VM named web exists already: choose another name."),
        (
            "POST",
            "/api/v1/vms",
            json!({ "name": "x", "cpus": 1, "memory_mib": 64, "disks": ["none"] }),
            404,
            "There is no volume named none.",
        ),
        (
            "POST",
            "/api/v1/vms",
            json!({ "name": "x", "cpus": 1, "memory_mib": 64, "node": "B" }),
            422,
            "Node B has not joined the pair yet: let it join first.",
        ),
        (
            "POST",
            "/api/v1/vms",
            json!({ "name": "x", "cpus": 1, "memory_mib": 64, "node": "C" }),
            422,
            "A node is \"A\" or \"B\".",
        ),
        ("DELETE", "/api/v1/vms/web", json!({}), 409, "The VM web is meant to run: stop it first."),
        ("POST", "/api/v1/vms/none/start", json!({}), 404, "There is no VM named none."),
        ("POST", "/api/v1/vms/none/kill", json!({}), 404, "There is no VM named none."),
    ];
    for (method, path, body, status, expected) in cases {
        let (got, reply) = send(&node, &token, method, path, body).await;
        assert_eq!((got, sentence(&reply)), (status, expected));
    }
    let huge = json!({ "name": "huge", "cpus": 1, "memory_mib": 4 << 20 });
    let (status, reply) = post("/api/v1/vms", huge).await;
    assert_eq!(status, 409);
    assert!(sentence(&reply).starts_with("The VM huge does not fit: all VMs together would need"), "{reply}");
    let processors = dyad_node::host_inventory::usable_cpus();
    let wide = json!({ "name": "wide", "cpus": processors + 1, "memory_mib": 64 });
    let (status, reply) = post("/api/v1/vms", wide).await;
    assert_eq!(status, 409);
    let expected = format!(
        "The VM wide does not fit: it has {} CPUs, and one node has {processors} when the other one is lost.",
        processors + 1
    );
    assert_eq!(sentence(&reply), expected);

    assert_eq!(post("/api/v1/vms/web/stop", Value::Null).await.0, 204);
    node.until("the VM is off", |s| s.vms.is_empty()).await;
    assert_eq!(post("/api/v1/vms/web/start", Value::Null).await.0, 204);
    node.until("the VM runs again", |s| s.vms.contains_key("web")).await;
    assert_eq!(post("/api/v1/vms/web/kill", Value::Null).await.0, 204);
    node.until("the VM is off again", |s| s.vms.is_empty()).await;
    let starts = node.starts.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(starts, 2, "once created, once started, and not again after the kill");
    assert_eq!(send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null).await.0, 204);
    assert_eq!(send(&node, &token, "DELETE", "/api/v1/volumes/disk", Value::Null).await.0, 204);
    assert_eq!(ask(&node, Some(&token), "GET", "/api/v1/volumes", "").await, (200, json!([])));
}

#[tokio::test]
async fn running_vms_are_reported_to_the_core_and_a_guest_shutdown_changes_the_document() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    send(&node, &token, "POST", "/api/v1/vms", json!({ "name": "web", "cpus": 1, "memory_mib": 64 })).await;
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    let reported = async {
        while node.core.lock().running != ["web"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), reported).await.expect("the core was not told of the VM");
    node.reports.upgrade().unwrap().send(SupervisorReport::GuestShutDown("web".into())).unwrap();
    node.until("the guest's shutdown is in the document", |s| {
        s.document.as_ref().is_some_and(|d| d.vms["web"].config.intent == Intent::GuestShutDown)
    })
    .await;
    let record = node.handle.snapshot().document.as_ref().unwrap().nodes[&NodeId::A].clone();
    assert_eq!(record.usable_memory_mib, dyad_node::host_inventory::usable_memory_mib());
    assert_eq!(record.usable_cpus, dyad_node::host_inventory::usable_cpus());
}

#[tokio::test]
async fn images_are_checked_during_the_upload_and_a_refused_one_changes_nothing() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    send(&node, &token, "POST", "/api/v1/volumes", json!({ "name": "disk", "size": 1 << 20 })).await;
    let put = async |path: &str, claimed: usize, image: Vec<u8>| {
        let request = Request::put(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_LENGTH, claimed);
        // The body arrives in several chunks, as from a socket.
        let pieces: Vec<_> = image.chunks(10_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let response = node.site.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let image: Vec<u8> = (0..50_000_u32).map(|i| (i % 251) as u8).collect();
    let content = "/api/v1/volumes/disk/content";
    let cases = [
        ("/api/v1/volumes/none/content", 5, image.clone(), "There is no volume named none."),
        (content, 1 << 21, image.clone(), "Make the volume larger."),
        (content, 0, vec![], "The image is empty: choose another file."),
        (
            content,
            50_000,
            image[..30_000].to_vec(),
            "The image ended after 30000 of 50000 bytes: the volume holds what it held before.",
        ),
        (
            content,
            50_000,
            [b"QFI\xfb".as_slice(), &image[4..]].concat(),
            "The image is a qcow2 image: convert it to a raw image first; nothing was written.",
        ),
        (
            content,
            50_000,
            [&image[..64], b"\x7f\x10\xda\xbe", &image[68..]].concat(),
            "The image is a VDI image: convert it to a raw image first; nothing was written.",
        ),
        ("/api/v1/volumes/disk/content?sha256=00", 50_000, image.clone(), "A SHA-256 is 64 hexadecimal digits."),
    ];
    for (path, claimed, image, expected) in cases {
        let (status, reply) = put(path, claimed, image).await;
        assert!(status >= 400);
        assert_eq!(sentence(&reply), expected);
        assert!(node.core.lock().content.is_empty(), "{expected}");
    }
    let wrong = format!("{content}?sha256={}", "0".repeat(64));
    let (status, reply) = put(&wrong, image.len(), image.clone()).await;
    assert_eq!(status, 422);
    let corrupt = "The image is corrupt, its SHA-256 is not the expected one: the volume holds what it held before.";
    assert_eq!(sentence(&reply), corrupt);
    assert!(node.core.lock().content.is_empty());

    let (status, reply) = put(content, image.len(), image.clone()).await;
    assert_eq!(status, 200, "{reply}");
    let right = format!("{content}?sha256={}", reply["sha256"].as_str().unwrap());
    assert_eq!(put(&right, image.len(), image.clone()).await.0, 200);
    assert_eq!(node.core.lock().content["disk"], image);
    // A failed import leaves the content of the last one.
    assert_eq!(put(content, image.len(), image[..9].to_vec()).await.0, 422);
    assert_eq!(node.core.lock().content["disk"], image);

    // The core refuses an image that is larger than the buffer between client and core.
    send(&node, &token, "POST", "/api/v1/volumes", json!({ "name": "large", "size": 8 << 20 })).await;
    let vm = json!({ "name": "web", "cpus": 1, "memory_mib": 64, "disks": ["large"] });
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms", vm).await.0, 201);
    let refused = put("/api/v1/volumes/large/content", 4 << 20, vec![7; 4 << 20]);
    let (status, reply) = tokio::time::timeout(std::time::Duration::from_secs(120), refused).await.expect("it hangs");
    assert_eq!((status, sentence(&reply)), (409, "A VM uses the volume large: stop it first."));
}

#[tokio::test]
async fn the_serial_log_continues_with_new_output_until_the_vm_is_deleted() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    send(&node, &token, "POST", "/api/v1/vms", json!({ "name": "web", "cpus": 1, "memory_mib": 64 })).await;
    let request = |follow: &str| {
        Request::get(format!("/api/v1/vms/web/serial/log{follow}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap()
    };
    let mut log = node.site.clone().oneshot(request("?follow=1")).await.unwrap().into_body().into_data_stream();
    assert_eq!(log.next().await.unwrap().unwrap(), "login: ");
    let line = node.handle.snapshot().vms["web"].serial.clone().unwrap();
    assert!(line.send("root".into()));
    assert_eq!(log.next().await.unwrap().unwrap(), "root");
    let (_, text) = ask(&node, Some(&token), "GET", "/api/v1/vms/web/serial/log", "").await;
    assert_eq!(text, "login: ");
    let (status, reply) = ask(&node, Some(&token), "GET", "/api/v1/vms/none/serial/log", "").await;
    assert_eq!((status, sentence(&reply)), (404, "There is no VM named none."));
    let (status, reply) = ask(&node, Some(&token), "GET", "/api/v1/vms/web/serial", "").await;
    assert_eq!((status, sentence(&reply)), (426, "The serial line needs a WebSocket."));
    send(&node, &token, "POST", "/api/v1/vms/web/stop", Value::Null).await;
    send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null).await;
    assert!(log.next().await.is_none(), "the log of a deleted VM ends");
}

#[tokio::test]
async fn an_event_is_sent_after_each_change_of_the_status() {
    let node = Node::set_up().await;
    let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
    let mut events = node.site.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut next = async || {
        let text = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data").to_owned();
        serde_json::from_str::<Value>(&data).unwrap()
    };
    assert_eq!(next().await["epoch"], 1);
    node.core.change(|s| s.quorum.as_mut().unwrap().epoch = Epoch(2));
    assert_eq!(next().await["epoch"], 2);
    node.core.change(|s| s.links[0].up = false);
    assert!(next().await["sentence"].as_str().unwrap().contains("the link eth1 is down"));
}

#[tokio::test]
async fn vms_events_are_sent_only_with_a_session_and_the_pages_listen_to_each_event() {
    const SCRIPT: &str = include_str!("../../web/assets/live.js");
    let node = Node::set_up().await;
    let token = login(&node).await;
    let follow = async |token: Option<&str>| {
        let bearer = token.map(|token| (header::AUTHORIZATION, format!("Bearer {token}")));
        let mut request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
        request.headers_mut().extend(bearer.map(|(name, value)| (name, value.parse().unwrap())));
        node.site.clone().oneshot(request).await.unwrap().into_body().into_data_stream()
    };
    let (mut known, mut anonymous) = (follow(Some(&token)).await, follow(None).await);
    send(&node, &token, "POST", "/api/v1/vms", json!({ "name": "web", "cpus": 1, "memory_mib": 64 })).await;
    let running = async {
        loop {
            let event = String::from_utf8(known.next().await.unwrap().unwrap().to_vec()).unwrap();
            let name = event.lines().find_map(|line| line.strip_prefix("event: ")).expect("a name");
            assert!(SCRIPT.contains(&format!("{name:?}")), "no page listens to {event}");
            if name == "vms" && event.contains("\"state\":\"running\"") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), running).await.expect("no event says that the VM runs");
    node.core.change(|s| s.quorum.as_mut().unwrap().epoch = Epoch(77));
    loop {
        let event = String::from_utf8(anonymous.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert!(event.starts_with("event: status") && !event.contains("web"), "{event}");
        if event.contains("\"epoch\":77") {
            return;
        }
    }
}

#[tokio::test]
async fn the_timeline_the_pairing_code_and_the_metrics_are_served() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let (_, timeline) = ask(&node, Some(&token), "GET", "/api/v1/timeline?since=2", "").await;
    assert_eq!(timeline["events"].as_array().unwrap().len(), 2);
    let (_, code) = ask(&node, Some(&token), "POST", "/api/v1/pairing-code", "").await;
    assert_eq!(code, json!({ "code": "123456", "expires_s": 600 }));
    let (_, metrics) = ask(&node, None, "GET", "/metrics", "").await;
    let metrics = metrics.as_str().unwrap();
    for line in ["dyad_protected 0", "dyad_epoch 1", "dyad_link_up{link=\"eth2\"} 1", "dyad_running_vms 0"] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in {metrics}");
    }
}

/// Only the VM's node knows whether the VM is still shutting down, so the other node must not delete it.
#[tokio::test]
async fn a_vm_of_the_other_node_is_not_deleted_here() {
    use dyad_desired::{Change, Firmware, Intent, NodeRecord, VmConfig, apply};
    let node = Node::set_up().await;
    let token = login(&node).await;
    {
        let mut core = node.core.lock();
        let other = NodeId::B;
        let record = NodeRecord { name: "right".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        let vm = VmConfig {
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: Vec::new(),
            node: other,
            intent: Intent::Stopped,
            priority: 50,
            ha: true,
        };
        let changes = [Change::SetNode { node: other, record }, Change::CreateVm { name: "web".into(), vm }];
        let document = core.document.take().unwrap();
        core.document = Some(changes.iter().fold(document, |document, change| apply(&document, change).unwrap()));
    }
    for (method, path) in [("DELETE", "/api/v1/vms/web"), ("POST", "/api/v1/vms/web/kill")] {
        let (status, reply) = send(&node, &token, method, path, Value::Null).await;
        assert_eq!((status, sentence(&reply)), (409, "The VM web is on the node right: ask that node."));
    }
    assert!(node.core.lock().document.as_ref().unwrap().vms.contains_key("web"));
    // The other node leaves the in-sync set. It may still run the VM, which only the core can judge: this node names the VM's
    // node in the change.
    node.core.change(|s| s.quorum.as_mut().unwrap().members.retain(|member| *member == NodeId::A));
    let alone = |s: &dyad_node::snapshot::Snapshot| !s.has_member(NodeId::B);
    node.until("the other node is out", alone).await;
    assert_eq!(send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null).await.0, 204);
}

/// A supervisor that has not seen the VM's last change may be starting the VM just now.
#[tokio::test]
async fn a_vm_is_deleted_only_when_the_supervisor_knows_its_last_change() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let vm = json!({ "name": "web", "cpus": 1, "memory_mib": 64 });
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms", vm).await.0, 201);
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    node.behind.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms/web/stop", Value::Null).await.0, 204);
    node.until("no process of the VM is known", |s| s.vms.is_empty()).await;
    let deletion = send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null);
    tokio::pin!(deletion);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut deletion).await;
    assert!(early.is_err(), "the VM was deleted: {early:?}");
    node.behind.store(false, std::sync::atomic::Ordering::Relaxed);
    let vms = std::collections::BTreeMap::new();
    let known = dyad_node::vms::SupervisorReport::Observed { vms, generation: u64::MAX };
    node.reports.upgrade().unwrap().send(known).unwrap();
    assert_eq!(deletion.await.0, 204);
    assert!(node.core.lock().document.as_ref().unwrap().vms.is_empty());
}

/// The request to stop returns before the guest has shut down, and the guest may still write.
#[tokio::test]
async fn a_vm_is_not_deleted_while_it_shuts_down() {
    let node = Node::set_up().await;
    let token = login(&node).await;
    let vm = json!({ "name": "web", "cpus": 1, "memory_mib": 64 });
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms", vm).await.0, 201);
    node.until("the VM runs", |s| s.vms.contains_key("web")).await;
    node.slow.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms/web/stop", Value::Null).await.0, 204);
    let (status, reply) = send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null).await;
    let expected = "The VM web is still shutting down: wait until it has stopped, or kill it.";
    assert_eq!((status, sentence(&reply)), (409, expected));
    assert_eq!(send(&node, &token, "POST", "/api/v1/vms/web/kill", Value::Null).await.0, 204);
    node.until("the VM is off", |s| s.vms.is_empty()).await;
    assert_eq!(send(&node, &token, "DELETE", "/api/v1/vms/web", Value::Null).await.0, 204);
}
