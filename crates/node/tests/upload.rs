//! Tests of images that are refused while they are being sent: the client still receives the sentence of the refusal.

mod support;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, header},
};
use dyad_api::{CreateVolume, Service};
use dyad_node::{http, server};
use support::{Node, PASSWORD};
use tower::ServiceExt;

/// Size of the image in bytes: more than the socket buffers of both sides together.
const IMAGE_BYTES: usize = 8 << 20;
/// Limit of one upload. It is shorter than `DRAIN_TIMEOUT` (30 s), so a response that ends only at that timeout fails the test.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the node's router on a real socket.
fn listen(node: &Node) -> PathBuf {
    let socket = node.dir.path().join("site.sock");
    tokio::spawn(server::serve_local(server::local_listener(&socket).unwrap(), node.site.clone()));
    socket
}

/// Sends the whole request and only then reads the response, as most clients do.
fn put(socket: &Path, volume: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let path = format!("/api/v1/volumes/{volume}/content");
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {IMAGE_BYTES}\r\n{headers}\r\n"
    )
    .unwrap();
    stream.write_all(body).expect("the node closed while the image was sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node closed before its answer was read");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sentence_of_an_early_refusal_reaches_a_client_that_sends_a_large_image() {
    let node = Node::set_up().await;
    node.handle.create_volume(CreateVolume { name: "disk".into(), size: 16 << 20 }).await.unwrap();
    let login = node.handle.login(dyad_api::Source::Local, PASSWORD).await.unwrap();
    let socket = listen(&node);
    let cookie = format!("Cookie: dyad_session={}\r\n", login.token);
    let raw = vec![7; IMAGE_BYTES];
    let qcow2 = [b"QFI\xfb".as_slice(), &raw[4..]].concat();
    let cases = [
        ("disk", String::new(), raw.clone(), "HTTP/1.1 401", "Log in first: this needs the administrator's password."),
        ("none", cookie.clone(), raw, "HTTP/1.1 404", "There is no volume named none."),
        ("disk", cookie, qcow2, "HTTP/1.1 422", "The image is a qcow2 image: convert it to a raw image first;"),
    ];
    for (volume, headers, image, status, sentence) in cases {
        let (socket, start) = (socket.clone(), Instant::now());
        let answer = tokio::task::spawn_blocking(move || put(&socket, volume, &headers, &image)).await.unwrap();
        assert!(answer.starts_with(status) && answer.contains(sentence), "{answer}");
        assert!(start.elapsed() < TEST_TIMEOUT, "{sentence} took {:?}", start.elapsed());
    }
    assert!(node.core.lock().content.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_wait_for_the_body_of_a_client_that_expects_100_continue() {
    let node = Node::set_up().await;
    let socket = listen(&node);
    let start = Instant::now();
    let request = move || put(&socket, "disk", "Expect: 100-continue\r\n", b"");
    let answer = tokio::task::spawn_blocking(request).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(start.elapsed() < TEST_TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn upload_forms_have_a_checksum_field_and_no_form_is_validated_by_the_browser() {
    let node = Node::set_up().await;
    node.handle.create_volume(CreateVolume { name: "disk".into(), size: 1 << 20 }).await.unwrap();
    let login = node.handle.login(dyad_api::Source::Local, PASSWORD).await.unwrap();
    let site = http::site(node.handle.clone(), dyad_web::router(node.handle.clone()));
    for page in ["/volumes", "/vms", "/login", "/"] {
        let request = Request::get(page).header(header::COOKIE, format!("dyad_session={}", login.token));
        let response = site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(bytes.to_vec()).unwrap();
        for form in page.split("<form ").skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            assert!(form.ends_with(" novalidate"), "the browser would refuse with a sentence of its own: {form}");
        }
        assert_eq!(page.contains("name=\"sha256\""), page.contains("data-upload"), "{page}");
    }
}
