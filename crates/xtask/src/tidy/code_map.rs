//! Rule: the code map in `ARCHITECTURE.md` and the manifests (`Cargo.toml`) state the same dependencies between crates,
//! and a crate depends only on crates below it in the map.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::sources::{crate_folders, repository, short_name};

/// Crates without I/O, clock and randomness, and the third-party crates that each depends on; reasons are in
/// `docs/decisions/0003-dependencies-of-pure-crates.md`.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("types", &["bytes", "serde"]),
    ("quorum", &["serde"]),
    ("mirror", &["bytes", "serde", "thiserror"]),
    ("desired", &["crc32c", "serde", "serde_json", "thiserror"]),
];
/// Third-party crates that a crate must not depend on: networks in the pool, HTTP in the supervisor, tokio in PID 1.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("pool", &["tokio", "socket2", "rustls"]),
    ("supervisor", &["axum", "hyper", "hyper-util", "tower"]),
    ("init", &["tokio"]),
];

/// Crates that are test programs: they may depend on `testkit`; other crates only in their tests.
const TEST_PROGRAMS: &[&str] = &["process-tests", "sim"];

/// A row of the code map.
struct Row {
    /// Short name of the crate, without `dyad-`.
    name: String,
    /// The last column: crates of this workspace that it depends on, tests left out.
    knows: BTreeSet<String>,
}

/// A crate's dependencies: crates of this workspace by short name (`ours`), and third-party crates (`foreign`).
struct Manifest {
    ours: BTreeSet<String>,
    ours_in_tests: BTreeSet<String>,
    foreign: BTreeSet<String>,
}

/// The rows of the code map that are crates, from top to bottom.
fn code_map() -> Vec<Row> {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md can be read");
    let rows = text.lines().filter(|line| line.starts_with("| `crates/") || line.starts_with("| `qemu-tests"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [place, _, knows] = cells[..] else { panic!("a row of the code map has three cells: {line}") };
        let knows = knows.split(", ").filter(|word| *word != "–").map(str::to_owned);
        Row { name: short_name(place.trim_matches('`')).to_owned(), knows: knows.collect() }
    })
    .collect()
}

fn manifests() -> BTreeMap<String, Manifest> {
    crate_folders()
        .into_iter()
        .map(|(name, folder)| {
            let text = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest can be read");
            let table: toml::Table = text.parse().expect("a manifest is TOML");
            let names = |section: &str| {
                let section = table.get(section).and_then(toml::Value::as_table);
                section.into_iter().flat_map(|table| table.keys().cloned()).collect::<BTreeSet<_>>()
            };
            let ours = |name: &String| name.strip_prefix("dyad-").map(str::to_owned);
            let all: BTreeSet<_> = names("dependencies").into_iter().chain(names("build-dependencies")).collect();
            assert!(!table.contains_key("target"), "{name} has dependencies that these rules do not see");
            let manifest = Manifest {
                ours: all.iter().filter_map(ours).collect(),
                ours_in_tests: names("dev-dependencies").iter().filter_map(ours).collect(),
                foreign: all.iter().filter(|name| ours(name).is_none()).cloned().collect(),
            };
            (name, manifest)
        })
        .collect()
}

#[test]
fn the_code_map_names_what_each_crate_knows() {
    let (map, manifests) = (code_map(), manifests());
    let rows: BTreeSet<_> = map.iter().map(|row| row.name.clone()).collect();
    assert_eq!(rows, manifests.keys().cloned().collect(), "one row for each crate");
    assert_eq!(map.len(), manifests.len(), "one row for each crate");
    for row in &map {
        assert_eq!(row.knows, manifests[&row.name].ours, "the row of {} in ARCHITECTURE.md", row.name);
    }
}

#[test]
fn arrows_point_down_only() {
    let (map, manifests) = (code_map(), manifests());
    for (at, row) in map.iter().enumerate() {
        let below: BTreeSet<_> = map[at + 1..].iter().map(|row| row.name.as_str()).collect();
        let manifest = &manifests[&row.name];
        // A crate's tests may also name the crate itself, to switch a feature on.
        let others = manifest.ours_in_tests.iter().filter(|name| **name != row.name);
        for known in manifest.ours.iter().chain(others) {
            assert!(below.contains(known.as_str()), "{} knows {known}, which is not below it", row.name);
        }
    }
}

#[test]
fn no_program_that_ships_depends_on_test_fixtures() {
    for (name, manifest) in manifests() {
        let allowed = TEST_PROGRAMS.contains(&name.as_str());
        assert!(allowed || !manifest.ours.contains("testkit"), "{name} may know testkit in its tests only");
    }
}

#[test]
fn pure_crates_stay_pure() {
    let manifests = manifests();
    for (name, allowed) in ALLOWED_DEPENDENCIES {
        let manifest = &manifests[*name];
        let others: Vec<_> = manifest.ours.iter().filter(|known| *known != "types" || *name == "types").collect();
        assert!(others.is_empty(), "{name} may know `types` and no other crate of ours, and knows {others:?}");
        let foreign: Vec<_> = manifest.foreign.iter().map(String::as_str).collect();
        assert_eq!(foreign, *allowed, "what {name} depends on");
    }
    for (name, forbidden) in FORBIDDEN_DEPENDENCIES {
        for dependency in *forbidden {
            assert!(!manifests[*name].foreign.contains(*dependency), "{name} must not depend on {dependency}");
        }
    }
}
