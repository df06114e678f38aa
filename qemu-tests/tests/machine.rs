//! One node alone: its boot loader, and what it refuses before it belongs to a pair.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dyad_rig::accelerator::Accelerator;
use dyad_rig::artifacts::Artifacts;
use dyad_rig::harness::{Fixture, Test, run_tests};
use dyad_rig::http::{Client, Refusal};
use dyad_rig::node::{Name, Node, Wiring};
use dyad_rig::pair::Sockets;
use dyad_rig::scenarios::BOOT_DEADLINE;
use dyad_rig::setup;
use dyad_rig::wait::{self, Look};
use serde_json::{Value, json};

/// Three bad boots and a good one, each through the firmware.
const FALL_BACK_DEADLINE: Duration = Duration::from_secs(360);
/// What the firmware says at each start.
const FIRMWARE: &str = "BdsDxe: starting";

const TESTS: [Test<Images>; 2] =
    [("refusals_change_nothing", refusals_change_nothing), ("bad_boots_fall_back", bad_boots_fall_back)];

/// The images that each test boots a node of its own from.
struct Images(Artifacts);

impl Fixture for Images {
    /// The node is off by now: the test named what it saw, and the records of its serial line are kept.
    fn record(&mut self, _: &str, _: bool) {}
}

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let artifacts = Artifacts::beside_this_program()?;
        artifacts.check()?;
        Ok(Images(artifacts))
    })
}

/// Each wrong answer gets one clear sentence, and the node stays as blank as its disks.
fn refusals_change_nothing(Images(artifacts): &mut Images) -> Result<()> {
    let sockets = Sockets::new("refusals")?;
    let records = artifacts.fresh_records("refusals")?;
    let mut node = Node::new(Name::A, Accelerator::Tcg, &artifacts.image(), Wiring::new()?, &records, sockets.path())?;
    node.power_on()?;
    let client = node.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    let good = setup::first_answers(&client)?;
    let cases: [(&str, Value); 5] = [
        ("a word that is not the confirmation", with(&good, "erase", json!("yes"))),
        ("no confirmation", without(&good, "erase")),
        ("a disk that is not there", with(&good, "disks", json!(["/dev/sdzz"]))),
        ("a short password", with(&good, "password", json!("short"))),
        ("an unknown key", with(&good, "colour", json!("green"))),
    ];
    for (what, answers) in &cases {
        let sentence = refused(&client, answers).with_context(|| format!("for {what}"))?;
        println!("    {what}: {sentence}");
        let setup = client.get("setup")?;
        ensure!(setup["phase"] == "blank", "After {what} the node is {}.", setup["phase"]);
    }
    // This request is well formed: the node accepts it, hears no first node with an open code, and is as blank as
    // before.
    let sentence = setup::failed(&client, &joining(&good, "000000"))?;
    println!("    a code that no sender shows: {sentence}");
    drop(node);
    for disk in ["pool0.img", "pool1.img"] {
        use std::os::unix::fs::MetadataExt as _;
        let blocks = fs::metadata(records.join("a").join(disk))?.blocks();
        ensure!(blocks == 0, "{disk} was written to: {blocks} blocks.");
    }
    Ok(())
}

/// Answers of a node that joins, without those that only a new pair needs.
fn joining(first: &Value, code: &str) -> Value {
    let join = with(&with(first, "role", json!("join")), "code", json!(code));
    ["pair", "password", "witness"].iter().fold(join, |answers, key| without(&answers, key))
}

/// A newer slot that never comes up is given three chances; then the loader takes the older one by itself.
fn bad_boots_fall_back(Images(artifacts): &mut Images) -> Result<()> {
    let sockets = Sockets::new("fallback")?;
    let records = artifacts.fresh_records("fallback")?;
    let mut node =
        Node::new(Name::A, Accelerator::Tcg, &artifacts.broken_image(), Wiring::new()?, &records, sockets.path())?;
    node.power_on()?;
    let client = node.client();
    let status = client.get_after_boot("the older slot", FALL_BACK_DEADLINE, "status")?;
    let log = fs::read_to_string(records.join("serial-a.log"))?;
    ensure!(log.contains("this node did not start"), "The broken slot says nothing; see {}.", records.display());
    let bad = log.matches(FIRMWARE).count() - 1;
    println!("    {bad} bad boots, then {}", status["versions"]["dyad"]);
    ensure!(bad == 3, "The broken slot got {bad} chances, not three.");
    let slots = wait::until("the older slot to be blessed", BOOT_DEADLINE, || {
        let slots = slots(&records.join("a/system.img"))?;
        let blessed = slots.iter().any(|slot| !slot.contains('+'));
        Ok(if blessed { Look::Ready(slots) } else { Look::NotYet(slots.join(" ")) })
    })?;
    println!("    {}", slots.join(" "));
    ensure!(slots.contains(&"dyad-9999+0-3.efi".to_owned()), "The broken slot is not used up: {slots:?}");
    // The next start goes straight to the older slot: the broken slot has no tries left.
    let position = node.serial().position();
    node.reset()?;
    node.serial().wait_for_text(FIRMWARE, position, BOOT_DEADLINE)?;
    client.get_after_boot("the older slot", BOOT_DEADLINE, "status")?;
    let log = fs::read_to_string(records.join("serial-a.log"))?;
    let starts = log.matches(FIRMWARE).count();
    ensure!(starts == bad + 2, "The broken slot was tried again: {starts} starts.");
    Ok(())
}

/// The names of the slots on a system disk, whose first partition begins after 1 MiB.
fn slots(disk: &Path) -> Result<Vec<String>> {
    let partition = format!("{}@@1M", disk.display());
    let mdir =
        Command::new("mdir").args(["-b", "-i", &partition, "::/EFI/Linux"]).output().context("mtools is missing")?;
    ensure!(mdir.status.success(), "{}", String::from_utf8_lossy(&mdir.stderr));
    let list = String::from_utf8(mdir.stdout)?;
    Ok(list.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect())
}

/// The sentence with which the node refuses these answers.
fn refused(client: &Client, answers: &Value) -> Result<String> {
    let error = match client.post("setup", answers) {
        Ok(answer) => bail!("The node accepted it: {answer}"),
        Err(error) => error,
    };
    let refusal = error.downcast_ref::<Refusal>().with_context(|| format!("No refusal: {error:#}"))?;
    ensure!((400..500).contains(&refusal.status), "HTTP {}: {}", refusal.status, refusal.body);
    let sentence = refusal.body["error"].as_str().with_context(|| format!("No sentence in {}", refusal.body))?;
    ensure!(sentence.ends_with('.') && sentence.len() < 300, "This is not one sentence: {sentence:?}");
    Ok(sentence.to_owned())
}

fn with(answers: &Value, key: &str, value: Value) -> Value {
    let mut answers = answers.clone();
    answers[key] = value;
    answers
}

fn without(answers: &Value, key: &str) -> Value {
    let mut answers = answers.clone();
    if let Some(map) = answers.as_object_mut() {
        map.remove(key);
    }
    answers
}
