//! Tests of the pages with a fake core. The pages are requested as by a browser without scripts.

mod support;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use dyad_node::http;
use dyad_node::vms::SupervisorReport;
use support::{Node, PASSWORD};
use tower::ServiceExt;

async fn fetch(site: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = site.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Sends the form of this page: its hidden fields, and the fields of `answer`.
async fn submit(site: &Router, page: &str, answer: &[(&str, &str)]) -> (StatusCode, String) {
    let between = |text: &str, key: &str| {
        let rest = text.split_once(key)?.1;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let hidden = page.split("<input type=\"hidden\"").skip(1);
    let kept = hidden.map(|tag| (between(tag, "name=\"").unwrap(), between(tag, "value=\"").unwrap()));
    let given = answer.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let fields: Vec<String> =
        kept.chain(given).map(|(name, value)| format!("{}={}", encode(&name), encode(&value))).collect();
    let request = Request::post("/setup").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    fetch(site, request.body(Body::from(fields.join("&"))).unwrap()).await
}

#[tokio::test]
async fn the_wizard_sends_no_page_with_the_password_and_still_sets_it() {
    let node = Node::start().await;
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    let (_, mut page) = fetch(&site, Request::get("/setup").body(Body::empty()).unwrap()).await;
    let mut asked = Vec::new();
    while let Some((_, rest)) = page.split_once("name=\"question\" value=\"") {
        let key = rest.split_once('"').unwrap().0.to_owned();
        let answer = match key.as_str() {
            "role" => "first",
            "disks" => "/dev/vdb",
            "erase" => "erase vdb",
            "pair" => "office",
            "node" => "left",
            "password" => PASSWORD,
            "witness" => "later",
            other => panic!("{other} is asked"),
        };
        page = submit(&site, &page, &[("answer", answer), ("button", "next")]).await.1;
        assert!(!page.contains(PASSWORD), "after {key}: {page}");
        asked.push(key);
        assert!(asked.len() < 20, "{asked:?}");
    }
    assert_eq!(asked.last().map(String::as_str), Some("witness"), "a question follows that of the password");
    let (status, page) = submit(&site, &page, &[("button", "begin")]).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    node.until("setup is finished", |s| s.task.as_ref().is_some_and(|t| t.finished)).await;
    node.until("the document is read", |s| s.document.is_some()).await;
    assert!(dyad_api::Service::login(&*node.handle, dyad_api::Source::Local, PASSWORD).await.is_ok());
}

#[tokio::test]
async fn the_wizard_shows_a_refused_seed_file_and_the_status_page_an_alarm() {
    let node = Node::start().await;
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    let file = node.dir.path().join("state").join(dyad_wizard::SEED_FILE);
    std::fs::write(&file, support::seed() + "colour = \"red\"\n").unwrap();
    dyad_node::seed::carry_out(node.handle.clone(), false).await.expect_err("carried out");
    node.until("the problem is shown", |s| s.task.is_some()).await;
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let (_, page) = fetch(&site, get("/setup")).await;
    assert!(page.contains("is unknown: remove it or correct its spelling."), "{page}");

    let node = Node::set_up().await;
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    let sentence = "The clocks drift apart: repair one.";
    let alarm = dyad_control::Alarm { code: dyad_control::AlarmCode::ClockDrift, sentence: sentence.into() };
    node.core.change(|s| s.alarms.push(alarm));
    node.until("the alarm is heard", |s| s.status.as_ref().is_some_and(|s| !s.alarms.is_empty())).await;
    let (_, page) = fetch(&site, get("/")).await;
    assert!(page.contains("Not protected: the clocks drift apart: repair one.") && page.contains(sentence), "{page}");
}

#[tokio::test]
async fn the_status_page_has_a_button_for_an_unproven_watchdog_only_with_a_session() {
    let node = Node::set_up().await;
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    let token = dyad_api::Service::login(&*node.handle, dyad_api::Source::Local, PASSWORD).await.unwrap().token;
    let page = async |token: &str| {
        let request = Request::get("/").header(header::COOKIE, format!("{}={token}", dyad_api::SESSION_COOKIE));
        fetch(&site, request.body(Body::empty()).unwrap()).await.1
    };
    const BUTTON: &str = "data-post=\"/api/v1/watchdog/prove\"";
    assert!(!page(&token).await.contains(BUTTON), "it is proven");
    let armed = dyad_control::WatchdogStatus::Armed { identity: "i6300esb".into(), timeout_s: 3, proven: false };
    node.core.change(|s| s.watchdog = armed.clone());
    node.until("the watchdog is seen", |s| s.status.as_ref().is_some_and(|s| s.watchdog == armed)).await;
    assert!(page(&token).await.contains(BUTTON));
    assert!(!page("no-session").await.contains(BUTTON), "without a session the node cannot be restarted");
}

#[tokio::test]
async fn the_status_page_warns_of_emulated_vms() {
    let node = Node::set_up().await;
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    let token = dyad_api::Service::login(&*node.handle, dyad_api::Source::Local, PASSWORD).await.unwrap().token;
    let page = async || {
        let request = Request::get("/").header(header::COOKIE, format!("{}={token}", dyad_api::SESSION_COOKIE));
        fetch(&site, request.body(Body::empty()).unwrap()).await.1
    };
    for (works, warned) in [(true, false), (false, true)] {
        node.reports.upgrade().unwrap().send(SupervisorReport::HardwareVirtualisation(works)).unwrap();
        node.until("the result of the KVM probe is known", |s| s.hardware_virtualisation == Some(works)).await;
        assert_eq!(page().await.contains(dyad_api::EMULATION_WARNING), warned);
    }
}
