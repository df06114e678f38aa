//! Tests of the questions: their order, the plans that answers give, and the sentence of each problem.

use dyad_wizard::{
    Answers, Disk, DiskContent, Link, NetworkSettings, Offer, Problem, QUESTIONS, QuestionId, SetupPlan, Surroundings,
    WitnessPlan, default, from_json, from_toml, next, plan, question, suggestion, to_toml,
};
use proptest::prelude::*;

fn disk(path: &str, content: DiskContent) -> Disk {
    Disk { path: path.into(), model: "QEMU".into(), bytes: 8 << 30, content }
}

fn rig() -> Surroundings {
    Surroundings {
        disks: vec![
            disk("/dev/vdb", DiskContent::Blank),
            disk("/dev/vdc", DiskContent::Foreign("ext4".into())),
            disk("/dev/vdd", DiskContent::Pool { pair: "other".into(), node: "x".into(), pair_id: "ff".into() }),
        ],
        ports: vec!["eth0".into()],
        links: vec![Link { name: "eth1".into(), up: true }, Link { name: "eth2".into(), up: false }],
        offers: vec![],
    }
}

const FIRST: &str = r#"
role = "first"
disks = ["/dev/vdb", "/dev/vdc"]
erase = "erase vdb vdc"
network = "dhcp"
pair = "office"
node = "left"
password = "correct horse"
witness = "192.0.2.9"
witness_code = "0123-4567"
"#;

const JOIN: &str = r#"
role = "join"
disks = "/dev/vdb"
erase = "erase vdb"
code = "123 456"
"#;

#[test]
fn questions_are_in_the_order_of_their_ids_and_fit_a_serial_screen() {
    for (i, q) in QUESTIONS.iter().enumerate() {
        assert_eq!(q.id as usize, i, "{}", q.key);
        assert_eq!(question(q.id).key, q.key);
        assert!(q.help.ends_with('.') && !q.title.ends_with('.'), "{}", q.key);
        assert!(q.title.len() <= 30 && q.help.len() <= 160, "{} does not fit a serial screen", q.key);
    }
}

/// Answers the questions with these texts; each question must come in this order, and none may remain.
fn answer_all(surroundings: &Surroundings, typed: &[(&str, &str)]) -> SetupPlan {
    let mut answers = Answers::new();
    for (key, text) in typed {
        let q = next(&answers, surroundings).expect("a question is left");
        assert_eq!(q.key, *key);
        answers.set(q.id, text, surroundings).unwrap();
    }
    assert!(next(&answers, surroundings).is_none());
    plan(&answers, surroundings).unwrap()
}

#[test]
fn a_first_node_with_one_management_port_and_dhcp_is_asked_nine_questions() {
    let typed = [
        ("role", "first"),
        ("disks", "vdb"),
        ("erase", "erase vdb"),
        ("network", "dhcp"),
        ("peer_links", "eth1 eth2"),
        ("pair", "office"),
        ("node", "left"),
        ("password", "correct horse"),
        ("witness", "later"),
    ];
    assert_eq!(typed.len(), 9);
    assert!(matches!(answer_all(&rig(), &typed), SetupPlan::First { witness: None, .. }));
}

/// `docs/decisions/0057-questions-of-the-wizard.md` says which questions are asked beyond nine.
#[test]
fn a_first_node_is_asked_at_most_fourteen_questions() {
    let mut server = rig();
    server.ports = vec!["eth0".into(), "eth1".into(), "eth2".into()];
    server.links.insert(0, Link { name: "eth0".into(), up: true });
    let typed = [
        ("role", "first"),
        ("disks", "vdb"),
        ("erase", "erase vdb"),
        ("port", "eth0"),
        ("network", "static"),
        ("address", "192.0.2.10/24"),
        ("gateway", "192.0.2.1"),
        ("dns", "192.0.2.1"),
        ("peer_links", "eth1 eth2"),
        ("pair", "office"),
        ("node", "left"),
        ("password", "correct horse"),
        ("witness", "192.0.2.9"),
        ("witness_code", "0123-4567"),
    ];
    assert_eq!(typed.len(), 14);
    assert!(matches!(answer_all(&server, &typed), SetupPlan::First { witness: Some(_), .. }));
    // The list above has every question for a first node: the others are for a joining node.
    let others: Vec<_> = QUESTIONS.iter().map(|q| q.key).filter(|key| typed.iter().all(|(k, _)| k != key)).collect();
    assert_eq!(others, ["offer", "code"]);
}

#[test]
fn a_seed_file_gives_the_expected_plan() {
    let answers = from_toml(FIRST, &rig()).unwrap();
    let wanted = SetupPlan::First {
        pair: "office".into(),
        node: "left".into(),
        disks: vec!["/dev/vdb".into(), "/dev/vdc".into()],
        password: "correct horse".into(),
        network: Some(NetworkSettings { port: "eth0".into(), fixed: None, peer_links: vec!["eth1".into()] }),
        witness: Some(WitnessPlan { address: "192.0.2.9:7403".into(), code: "0123-4567".into() }),
    };
    assert_eq!(plan(&answers, &rig()), Ok(wanted));
    let join = plan(&from_toml(JOIN, &rig()).unwrap(), &rig()).unwrap();
    let SetupPlan::Join { node, code, pair_id, .. } = join else { panic!("{join:?}") };
    assert_eq!((node.as_str(), code.as_str(), pair_id), ("node-b", "123456", None));
}

#[test]
fn answers_written_as_a_seed_file_are_read_back_unchanged() {
    for seed in [FIRST, JOIN] {
        let answers = from_toml(seed, &rig()).unwrap();
        assert_eq!(from_toml(&to_toml(&answers), &rig()).unwrap(), answers);
    }
}

#[test]
fn json_and_toml_give_the_same_answers() {
    let json = br#"{"role":"join","disks":["/dev/vdb"],"erase":"erase vdb","code":"123456","pair":"","offer":null}"#;
    assert_eq!(from_json(json, &rig()).unwrap(), from_toml(JOIN, &rig()).unwrap());
}

#[test]
fn each_problem_is_one_sentence_that_names_the_wrong_answer() {
    let with = |line: &str| format!("{}\n{line}", FIRST.trim());
    let replaced = |from: &str, to: &str| FIRST.replace(from, to);
    let cases = [
        (with("colour = \"red\""), "The key \"colour\" is unknown: remove it or correct its spelling."),
        (with("code = \"123456\""), "The key \"code\" does not fit the other answers: remove it."),
        (with("gateway = \"192.0.2.1\""), "The key \"gateway\" does not fit"),
        (with("dns = 7"), "The key \"dns\" must be a text in quotes or a list of such texts."),
        (
            replaced("role = \"first\"", "role = \"third\""),
            "\"third\" is not an answer to \"role\": choose first or join.",
        ),
        (replaced("role = \"first\"", "role = first"), "The setup cannot be read:"),
        (replaced("pair = \"office\"", ""), "The answer \"pair\" (Name of the pair) is missing."),
        (
            replaced("witness = \"192.0.2.9\"", "").replace("witness_code = \"0123-4567\"", ""),
            "The answer \"witness\" (Witness) is missing.",
        ),
        (replaced("/dev/vdc", "/dev/sdz"), "There is no disk /dev/sdz in this node: choose a disk of the list."),
        (
            replaced("/dev/vdc", "/dev/vdd"),
            "The disk /dev/vdd belongs to the pair \"other\" (node x) and is never overwritten: choose another disk, or erase this one first (dyad erase --disk).",
        ),
        (replaced("erase vdb vdc", "erase vdb"), "Nothing was erased: to confirm, type exactly \"erase vdb vdc\"."),
        (replaced("erase = \"erase vdb vdc\"", ""), "The answer \"erase\" (Confirm what is erased) is missing."),
        (replaced("office", "The Office"), "The name \"The Office\" cannot be used:"),
        (replaced("correct horse", "short"), "The password must have 8 to 128 characters"),
        (replaced("192.0.2.9", "192.0.2.999"), "\"192.0.2.999\" is not a witness:"),
        (replaced("0123-4567", "0123 4567!"), "A witness code is letters, digits and hyphens"),
        (JOIN.replace("123 456", "12345"), "A pairing code is 6 digits, as the first node shows them."),
        (with("peer_links = [\"eth0\"]"), "There is no network port eth0 in this node"),
        (
            replaced("\"dhcp\"", "\"static\"\naddress = \"10.0.0.1\""),
            "\"10.0.0.1\" is not an address with a prefix length",
        ),
    ];
    for (seed, expected) in cases {
        let sentence = match from_toml(&seed, &rig()).and_then(|answers| plan(&answers, &rig())) {
            Err(problem) => problem.to_string(),
            Ok(plan) => panic!("{expected}: accepted as {plan:?}"),
        };
        assert!(sentence.starts_with(expected), "{sentence}");
        assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn changing_the_disks_removes_the_confirmation() {
    let mut answers = from_toml(FIRST, &rig()).unwrap();
    answers.set(QuestionId::Disks, "/dev/vdb", &rig()).unwrap();
    assert_eq!(next(&answers, &rig()).map(|q| q.id), Some(QuestionId::Erase));
    assert_eq!(answers.confirmation().as_deref(), Some("erase vdb"));
}

#[test]
fn changing_the_role_removes_answers_that_no_longer_fit() {
    let mut answers = from_toml(FIRST, &rig()).unwrap();
    answers.set(QuestionId::Role, "join", &rig()).unwrap();
    assert_eq!(answers.get(QuestionId::Password), None);
    assert_eq!(next(&answers, &rig()).map(|q| q.id), Some(QuestionId::Code));
}

#[test]
fn a_disk_that_joined_a_pair_since_it_was_chosen_is_refused() {
    let answers = from_toml(FIRST, &rig()).unwrap();
    let mut later = rig();
    later.disks[0].content = DiskContent::Pool { pair: "new".into(), node: "y".into(), pair_id: "ff".into() };
    assert!(matches!(plan(&answers, &later), Err(Problem::DiskOfPair { .. })));
}

#[test]
fn with_several_discovered_pairs_the_one_to_join_must_be_named() {
    let mut surroundings = rig();
    for (pair_id, pair) in [("aa", "office"), ("bb", "lab")] {
        surroundings.offers.push(Offer { pair_id: pair_id.into(), pair: pair.into(), node: "left".into() });
    }
    let answers = from_toml(JOIN, &surroundings).unwrap();
    assert_eq!(next(&answers, &surroundings).map(|q| q.id), Some(QuestionId::Offer));
    assert!(matches!(plan(&answers, &surroundings), Err(Problem::Missing { key: "offer", .. })));
    let answers = from_toml(&format!("{JOIN}\noffer = \"lab\""), &surroundings).unwrap();
    assert!(matches!(plan(&answers, &surroundings), Ok(SetupPlan::Join { pair_id: Some(id), .. }) if id == "bb"));
    let unknown = from_toml(&format!("{JOIN}\noffer = \"first.example:7401\""), &surroundings);
    assert_eq!(unknown, Err(Problem::NoOffer("first.example:7401".into())), "only a discovered pair can be joined");
}

#[test]
fn the_management_port_is_never_a_peer_link() {
    let mut node = rig();
    node.ports = vec!["eth0".into(), "eth1".into(), "eth2".into()];
    node.links.insert(0, Link { name: "eth0".into(), up: true });
    let plan_of = |port: &str, links: &str| {
        let seed = format!("{FIRST}\nport = {port:?}\n{links}");
        from_toml(&seed, &node).and_then(|answers| plan(&answers, &node))
    };
    let links = |plan| match plan {
        Ok(SetupPlan::First { network: Some(network), .. }) => network.peer_links,
        other => panic!("{other:?}"),
    };
    assert_eq!(links(plan_of("eth0", "")), ["eth1"], "eth2 has no signal");
    assert_eq!(links(plan_of("eth1", "")), ["eth0"]);
    assert_eq!(links(plan_of("eth0", "peer_links = [\"eth1\", \"eth2\"]")), ["eth1", "eth2"]);
    assert_eq!(plan_of("eth1", "peer_links = [\"eth1\"]"), Err(Problem::PortTwice("eth1".into())));
}

#[test]
fn secrets_are_not_printed() {
    let answers = from_toml(FIRST, &rig()).unwrap();
    assert!(!format!("{answers:?}").contains("horse"));
    assert!(answers.summary().iter().all(|(_, text)| !text.contains("horse")));
}

#[test]
fn without_managed_ports_no_network_question_is_asked() {
    let laptop = Surroundings { disks: rig().disks, ..Surroundings::default() };
    let answers = from_toml(&FIRST.replace("network = \"dhcp\"", ""), &laptop).unwrap();
    assert!(matches!(plan(&answers, &laptop), Ok(SetupPlan::First { network: None, .. })));
}

#[test]
fn suggestions_and_defaults_are_accepted_answers() {
    let mut surroundings = rig();
    surroundings.ports.push("eth3".into());
    for role in ["first", "join"] {
        let mut answers = Answers::new();
        answers.set(QuestionId::Role, role, &surroundings).unwrap();
        for q in QUESTIONS {
            for text in [default(q.id, &answers, &surroundings), suggestion(q.id, &answers, &surroundings)] {
                if let Some(text) = text
                    && (q.asked)(&answers, &surroundings)
                {
                    answers.clone().set(q.id, &text, &surroundings).unwrap_or_else(|p| panic!("{}: {p}", q.key));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_plan_never_names_a_disk_that_may_not_be_erased(
        disks in proptest::collection::vec("(/dev/)?(vd[a-e]|sda|)", 0..4),
        erase in proptest::collection::vec("erase|vd[a-e]", 0..4),
    ) {
        let seed = format!("role = \"first\"\npair = \"p\"\npassword = \"12345678\"\nwitness = \"later\"\n\
            disks = {disks:?}\nerase = {:?}", erase.join(" "));
        if let Ok(SetupPlan::First { disks, .. }) = from_toml(&seed, &rig()).and_then(|a| plan(&a, &rig())) {
            prop_assert!(!disks.is_empty());
            for path in disks {
                let free = rig().disks.iter().any(|d| d.path == path && !matches!(d.content, DiskContent::Pool { .. }));
                prop_assert!(free && erase.iter().any(|e| path.ends_with(e.as_str())), "{}", path);
            }
        }
    }

    #[test]
    fn no_text_makes_the_seed_reader_panic(text in "\\PC{0,200}", key in "[a-z_]{1,8}") {
        let _ = from_toml(&text, &rig());
        let _ = from_json(text.as_bytes(), &rig());
        let seed = format!("{key} = {text:?}");
        if let Err(problem) = from_toml(&seed, &rig()) {
            prop_assert!(!problem.to_string().contains('\n'));
        }
    }
}

#[test]
fn docs_seed_md_lists_every_key_in_order() {
    let page = include_str!("../../../docs/seed.md");
    let keys: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(keys, QUESTIONS.iter().map(|question| question.key).collect::<Vec<_>>());
}
