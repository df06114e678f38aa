//! Tests of the OpenAPI document: the committed file is the generated one. After an intended change, run
//! `DYAD_BLESS=1 cargo test -p dyad-api --test openapi` and read the difference before committing it.

use std::{collections::BTreeSet, fs, path::Path};

use dyad_api::{Permission, ROUTES, SetupRequest, openapi};
use dyad_wizard::QUESTIONS;

#[test]
fn the_committed_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let generated = openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("DYAD_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(committed == generated, "docs/openapi.json is not what the code says: see the head of this test");
    assert!(committed.contains("\"openapi\": \"3.1.0\""));
}

#[test]
fn every_reference_names_an_existing_schema() {
    let text = openapi().to_json().unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let schemas = &document["components"]["schemas"];
    let references: BTreeSet<&str> =
        text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 20);
    for name in references {
        assert!(schemas.get(name).is_some(), "no schema {name}");
    }
}

#[test]
fn every_route_is_described_once() {
    let document: serde_json::Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut ids = BTreeSet::new();
    for route in ROUTES {
        let method = format!("{:?}", route.method).to_lowercase();
        let operation = &document["paths"][route.path][&method];
        assert_eq!(operation["operationId"], route.operation);
        assert_eq!(operation["security"].is_array(), route.permission == Permission::Session, "{:?}", route.id);
        assert!(route.summary.ends_with('.') && ids.insert(route.operation), "{:?}", route.id);
    }
}

#[test]
fn the_setup_request_has_the_keys_of_the_seed_file() {
    let request = serde_json::to_value(SetupRequest::default()).unwrap();
    let request: BTreeSet<&str> = request.as_object().unwrap().keys().map(String::as_str).collect();
    let seed: BTreeSet<&str> = QUESTIONS.iter().map(|q| q.key).collect();
    assert_eq!(request, seed);
}
