//! Interrupted setups, and erasing, with files as disks.

use dyad_control::{CreatePair, DiskContent, Enrol, Refusal, RefusalCode};
use dyad_provision::erase::Confirmation;
use dyad_provision::identity::NodeIdentity;
use dyad_provision::paths::NodePaths;
use dyad_provision::{disks, erase, register, setup};
use std::fs::File;
use std::path::Path;

const NO_PASSWORD: &str = "$argon2id$v=19$m=8,t=1,p=1$bm9ib2R5bG9nc2lu$bm9ib2R5bG9nc2luaGVyZWF0YWxsMDAwMDAwMDAwMDA";

fn node(dir: &Path, disks: &[&str]) -> NodePaths {
    let disks = disks.iter().map(|name| {
        let path = dir.join(name);
        File::options().create(true).truncate(false).write(true).open(&path).unwrap().set_len(600 << 20).unwrap();
        path
    });
    let options = NodePaths { state: dir.join("state"), run: dir.join("run"), disks: disks.collect() };
    std::fs::create_dir_all(&options.state).unwrap();
    options
}

fn create_pair(options: &NodePaths, pair: &str) -> Result<NodeIdentity, Refusal> {
    let request = CreatePair {
        pair: pair.into(),
        node: "left".into(),
        disks: options.disks.iter().map(|disk| disk.display().to_string()).collect(),
        links: Vec::new(),
        admin_password_hash: NO_PASSWORD.into(),
        witness: None,
    };
    create_pair_with(options, &request)
}

fn create_pair_with(options: &NodePaths, request: &CreatePair) -> Result<NodeIdentity, Refusal> {
    let tls = dyad_link::tls::TlsIdentity::load_or_generate(&options.state, "node").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(setup::create_pair(options, request, &tls, &|_| {}))
}

fn contents(options: &NodePaths) -> Vec<DiskContent> {
    disks::list(&options.disks, &options.run).into_iter().map(|disk| disk.content).collect()
}

fn belongs_to(content: &DiskContent, wanted: &str) -> bool {
    matches!(content, DiskContent::Pool { pair, .. } if pair == wanted)
}

#[test]
fn a_setup_that_stopped_before_its_last_step_is_undone_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let options = node(dir.path(), &["one.disk", "two.disk"]);
    create_pair(&options, "office").unwrap();
    // This is the state before the last step of setup.
    NodeIdentity::decommission(&options.state).unwrap();
    assert_eq!(NodeIdentity::load(&options.state).unwrap(), None);
    assert!(contents(&options).iter().all(|content| belongs_to(content, "office")));
    // The erasure is interrupted as well, after the first disk.
    disks::erase(&disks::parts(&options.disks[0]).unwrap(), &options).unwrap();

    erase::undo(&options, &|_| {}).unwrap();
    assert_eq!(contents(&options), [DiskContent::Blank, DiskContent::Blank]);
    assert_eq!(NodeIdentity::unfinished(&options.state).unwrap(), None);
    assert!(!register::path(&options.state).exists());
    erase::undo(&options, &|_| {}).unwrap();

    let identity = create_pair(&options, "office").unwrap();
    assert_eq!(NodeIdentity::load(&options.state).unwrap(), Some(identity));
    // On a node that is set up `undo` does nothing.
    erase::undo(&options, &|_| {}).unwrap();
    assert!(contents(&options).iter().all(|content| belongs_to(content, "office")));
}

#[test]
fn undo_erases_only_disks_of_the_unfinished_pair() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other_node = node(other.path(), &["foreign.disk"]);
    create_pair(&other_node, "office").unwrap();
    let mut options = node(mine.path(), &["own.disk"]);
    create_pair(&options, "office").unwrap();
    NodeIdentity::decommission(&options.state).unwrap();
    options.disks.extend(other_node.disks.clone());
    erase::undo(&options, &|_| {}).unwrap();
    let found = contents(&options);
    assert_eq!(found[0], DiskContent::Blank);
    assert!(belongs_to(&found[1], "office"), "the disk of a pair with the same name and another id is kept");
}

#[test]
fn a_disk_of_another_pair_is_erased_only_if_its_name_is_typed() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other_node = node(other.path(), &["vdb"]);
    create_pair(&other_node, "office").unwrap();
    let options = NodePaths { disks: other_node.disks.clone(), ..node(mine.path(), &[]) };
    let refused = |reply: Result<_, Refusal>| match reply {
        Err(Refusal { code, sentence }) => (code, sentence),
        _ => panic!("not refused"),
    };
    let (code, sentence) = refused(create_pair(&options, "harbour").map(|_| ()));
    assert_eq!(code, RefusalCode::DiskOfPair);
    assert!(sentence.contains("office") && sentence.contains("dyad erase --disk"), "{sentence}");
    assert_eq!(refused(erase::disk(&options, "vdc", Confirmation("vdc"))).0, RefusalCode::UnknownDisk);
    for wrong in ["", "office", "erase vdb"] {
        let (code, sentence) = refused(erase::disk(&options, "vdb", Confirmation(wrong)));
        assert_eq!(code, RefusalCode::Confirm);
        assert!(sentence.contains("type exactly \"vdb\""), "{sentence}");
    }
    erase::disk(&options, "vdb", Confirmation("vdb")).unwrap();
    assert_eq!(refused(erase::disk(&options, "vdb", Confirmation("vdb"))).0, RefusalCode::NoPoolDisk);
    create_pair(&options, "harbour").unwrap();
}

#[test]
fn a_witness_that_refuses_or_is_not_reached_leaves_the_node_blank() {
    use dyad_witness::server::{Server, WitnessConfig};
    let dir = tempfile::tempdir().unwrap();
    let options = node(dir.path(), &["own.disk"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = runtime
        .block_on(async { Server::open(&WitnessConfig { directory: dir.path().join("witness"), listen }) })
        .unwrap();
    let (address, code) = (server.address().unwrap().to_string(), server.open_code().code);
    let (start, end) = code.split_at(code.len() - 1);
    let wrong = format!("{start}{}", if end == "7" { '8' } else { '7' });
    let request = |address: &str, code: &str| CreatePair {
        pair: "office".into(),
        node: "left".into(),
        disks: vec![options.disks[0].display().to_string()],
        links: Vec::new(),
        admin_password_hash: NO_PASSWORD.into(),
        witness: Some(Enrol { address: address.into(), code: code.into() }),
    };
    // A second open code: the label tells which code was typed, so a used code is still reported as used, not as wrong.
    let _other = server.open_code();
    let _serving = runtime.spawn(server.run());
    let written =
        || std::fs::read_dir(&options.state).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let refused = |address: &str, code: &str, expected: &str| {
        match create_pair_with(&options, &request(address, code)) {
            Err(Refusal { sentence, .. }) => assert!(sentence.starts_with(expected), "{sentence}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(contents(&options), [DiskContent::Blank]);
        assert!(!written().iter().any(|name| name == "identity.json" || name == "unfinished.json"), "{:?}", written());
    };
    refused(&address, &wrong, "The witness code is wrong:");
    refused("127.0.0.1:1", &code, "The witness at 127.0.0.1:1 cannot be reached;");

    let identity = create_pair_with(&options, &request(&address, &code)).unwrap();
    let witness = identity.witness.clone().unwrap();
    assert_eq!((witness.address.as_str(), witness.incarnation != 0), (address.as_str(), true));
    assert_eq!(NodeIdentity::load(&options.state).unwrap(), Some(identity));

    let options = node(dir.path(), &["other.disk"]);
    let request = CreatePair { disks: vec![options.disks[0].display().to_string()], ..request(&address, &code) };
    let Err(Refusal { code, .. }) = create_pair_with(&options, &request) else { panic!("a used code is taken") };
    assert_eq!(code, RefusalCode::NoCodeOpen);
    assert_eq!(contents(&options), [DiskContent::Blank]);
}
