//! Rule: third-party crates meet `deny.toml`: licences, registry, and crates that are refused.
//!
//! `cargo deny check` reads the same file and looks deeper (licence texts, advisories); building it takes longer than
//! all other checks of the source together, so it is left to releases. The names and licences are those of cargo's
//! metadata.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};
use toml::Table;

use super::sources::{read, repository};

/// The lists of `deny.toml` that this rule checks.
struct Policy {
    platform: String,
    licences: Vec<Licensee>,
    /// Name of each refused crate and the reason.
    refused: Vec<(String, String)>,
}

impl Policy {
    fn of_repository() -> Self {
        let file: Table = read(&repository().join("deny.toml")).parse().expect("deny.toml is TOML");
        let list = |table: &str, key: &str| {
            file[table][key].as_array().unwrap_or_else(|| panic!("deny.toml has no list {table}.{key}")).clone()
        };
        let text = |value: &toml::Value| value.as_str().expect("this is a string in deny.toml").to_owned();
        let licensee = |value: &toml::Value| Licensee::parse(&text(value)).expect("deny.toml names SPDX licences");
        Self {
            platform: text(&list("graph", "targets")[0]),
            licences: list("licenses", "allow").iter().map(licensee).collect(),
            refused: list("bans", "deny").iter().map(|ban| (text(&ban["crate"]), text(&ban["reason"]))).collect(),
        }
    }

    /// Sentences on each rule that one package of cargo's metadata breaks.
    fn violations(&self, package: &Value) -> Vec<String> {
        let text = |field: &str| package[field].as_str();
        // A package without a source is a crate of this workspace.
        let Some(source) = text("source") else { return wildcards(package) };
        let name = text("name").unwrap_or_default();
        let mut violations = Vec::new();
        if !source.starts_with("registry+") {
            violations.push(format!("{name} comes from {source}"));
        }
        if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| refused == name) {
            violations.push(format!("{name} is refused: {reason}"));
        }
        let licence = text("license").unwrap_or_default();
        if !self.permits(licence) {
            violations.push(format!("{name} has the licence {licence:?}"));
        }
        violations
    }

    /// Whether a licence expression can be met with the permitted licences alone.
    fn permits(&self, licence: &str) -> bool {
        // Older crates write "MIT/Apache-2.0".
        let expression = Expression::parse_mode(licence, ParseMode::LAX);
        expression.is_ok_and(|parsed| {
            parsed.evaluate(|requirement| self.licences.iter().any(|licensee| licensee.satisfies(requirement)))
        })
    }
}

/// Sentences on each dependency of a crate of this workspace that allows any version (`*`).
fn wildcards(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| dependency["req"] == "*" && dependency["path"].is_null())
        .map(|dependency| format!("{} takes any version of {}", package["name"], dependency["name"]))
        .collect()
}

#[test]
fn dependencies_are_permitted() {
    let policy = Policy::of_repository();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform"]);
    let output = cargo.arg(&policy.platform).current_dir(repository()).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's metadata is JSON");
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let foreign: Vec<_> = packages.iter().filter_map(|package| package["source"].as_str()).collect();
    assert!(foreign.len() > 50, "cargo listed only {} crates of others: was its metadata understood?", foreign.len());
    assert!(foreign.iter().all(|source| *source == foreign[0]), "crates come from several registries");
    let violations: Vec<_> = packages.iter().flat_map(|package| policy.violations(package)).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_crate_that_must_not_be_used_is_found() {
    let policy = Policy::of_repository();
    let violations = |source: &str, name: &str, license: &str| {
        policy.violations(&serde_json::json!({"source": source, "name": name, "license": license})).len()
    };
    for licence in ["MIT OR Apache-2.0", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "Apache-2.0 WITH LLVM-exception"] {
        assert_eq!(violations("registry+x", "good", licence), 0, "{licence}");
    }
    for licence in ["GPL-3.0-only AND MIT", "GPL-3.0-only", ""] {
        assert_eq!(violations("registry+x", "bad", licence), 1, "{licence}");
    }
    assert_eq!(violations("registry+x", "bincode", "MIT"), 1);
    assert_eq!(violations("git+https://example.org/x", "elsewhere", "MIT"), 1);
    let any = |path: Option<&str>| serde_json::json!({"name": "any", "req": "*", "path": path});
    let ours = serde_json::json!({"name": "ours", "dependencies": [any(None), any(Some("/sibling"))]});
    assert_eq!(policy.violations(&ours), ["\"ours\" takes any version of \"any\""]);
}
