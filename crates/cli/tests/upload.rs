//! Test of an upload that the node refuses: the program shows the node's sentence and not a broken connection.

#[path = "../../node/tests/support/mod.rs"]
mod support;

use std::process::Command;

use dyad_node::{certificate, server};
use support::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_image_of_8_mib_ends_with_the_nodes_sentence() {
    let node = Node::set_up().await;
    let tls = certificate::server_config(&node.dir.path().join("state")).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(server::serve_tls(listener, tls, node.site.clone()));
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyad"));
        command.args(["--node", &url, "--config"]).arg(node.dir.path().join("config"));
        command.args(arguments).env("DYAD_PASSWORD", support::PASSWORD).env_remove("DYAD_NODE");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned()
    };
    let mut image = vec![7; 8 << 20];
    let file = node.dir.path().join("image");
    let path = file.to_str().unwrap();
    std::fs::write(&file, &image).unwrap();
    assert_eq!(
        run(&["volume", "import", "disk", path]).await,
        "Log in first: this needs the administrator's password."
    );
    run(&["login"]).await;
    assert_eq!(run(&["volume", "import", "none", path]).await, "There is no volume named none.");
    assert_eq!(run(&["volume", "create", "disk", "16MiB"]).await, "");
    image[..4].copy_from_slice(b"QFI\xfb");
    std::fs::write(&file, &image).unwrap();
    assert_eq!(
        run(&["volume", "import", "disk", path]).await,
        "The image is a qcow2 image: convert it to a raw image first; nothing was written."
    );
    image[..4].copy_from_slice(b"good");
    std::fs::write(&file, &image).unwrap();
    assert_eq!(run(&["volume", "import", "disk", path]).await, "");
    assert_eq!(node.core.lock().content["disk"], image);
}
