//! Tests of one node without a pair: refused setups, and the fall-back of the boot loader.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dyad_rig::accelerator::Accelerator;
use dyad_rig::artifacts::Artifacts;
use dyad_rig::harness::{MachineFixture, Test, run_tests};
use dyad_rig::http::{Client, Refusal};
use dyad_rig::node::{Node, NodeName, Wiring};
use dyad_rig::pair::Sockets;
use dyad_rig::scenarios::BOOT_DEADLINE;
use dyad_rig::setup;
use dyad_rig::wait::{self, Poll};
use serde_json::{Value, json};

/// Longest time for three failed boots and a good one, each through the firmware.
const FALL_BACK_DEADLINE: Duration = Duration::from_secs(360);
/// Text that the firmware prints at each start of a machine.
const FIRMWARE_START_TEXT: &str = "BdsDxe: starting";

const TESTS: [Test<ImagesFixture>; 2] =
    [("refusals_change_nothing", refusals_change_nothing), ("bad_boots_fall_back", bad_boots_fall_back)];

/// Paths of the images. Each test boots a node of its own from one of them.
struct ImagesFixture(Artifacts);

impl MachineFixture for ImagesFixture {
    /// Saves nothing: each test keeps the serial log of its node in its own records, and its node is off now.
    fn record_outcome(&mut self, _: &str, _: bool) {}
}

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let artifacts = Artifacts::beside_this_program()?;
        artifacts.check()?;
        Ok(ImagesFixture(artifacts))
    })
}

/// Each wrong answer is refused with one sentence; the node stays blank, and no byte is written to its pool disks.
fn refusals_change_nothing(ImagesFixture(artifacts): &mut ImagesFixture) -> Result<()> {
    let sockets = Sockets::new("refusals")?;
    let records = artifacts.fresh_records("refusals")?;
    let mut node =
        Node::new(NodeName::A, Accelerator::Tcg, &artifacts.image(), &Wiring::new()?, &records, sockets.path())?;
    node.use_one_processor();
    node.power_on()?;
    let client = node.client();
    client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
    let good = setup::first_node_answers(&client)?;
    let cases: [(&str, Value); 5] = [
        ("a word that is not the confirmation", with_answer(&good, "erase", json!("yes"))),
        ("no confirmation", without_answer(&good, "erase")),
        ("a disk that is not there", with_answer(&good, "disks", json!(["/dev/sdzz"]))),
        ("a short password", with_answer(&good, "password", json!("short"))),
        ("an unknown key", with_answer(&good, "colour", json!("green"))),
    ];
    for (what, answers) in &cases {
        let sentence = refusal_sentence(&client, answers).with_context(|| format!("for {what}"))?;
        println!("    {what}: {sentence}");
        let setup = client.get("setup")?;
        ensure!(setup["phase"] == "blank", "After {what} the node is {}.", setup["phase"]);
    }
    // This request is well formed, so the node accepts it. Then it finds no first node with an open code, and stays
    // blank.
    let sentence = setup::begin_and_expect_failure(&client, &joining_answers(&good, "000000"))?;
    println!("    a code that no sender shows: {sentence}");
    drop(node);
    for disk in ["pool0.img", "pool1.img"] {
        use std::os::unix::fs::MetadataExt as _;
        let blocks = fs::metadata(records.join("a").join(disk))?.blocks();
        ensure!(blocks == 0, "{disk} was written to: {blocks} blocks.");
    }
    Ok(())
}

/// The answers `first` of a first node changed to those of a node that joins with `code`.
fn joining_answers(first: &Value, code: &str) -> Value {
    let join = with_answer(&with_answer(first, "role", json!("join")), "code", json!(code));
    ["pair", "password", "witness"].iter().fold(join, |answers, key| without_answer(&answers, key))
}

/// A newer slot whose boot fails is tried three times; then the boot loader takes the older slot without an operator.
fn bad_boots_fall_back(ImagesFixture(artifacts): &mut ImagesFixture) -> Result<()> {
    let sockets = Sockets::new("fallback")?;
    let records = artifacts.fresh_records("fallback")?;
    let mut node =
        Node::new(NodeName::A, Accelerator::Tcg, &artifacts.broken_image(), &Wiring::new()?, &records, sockets.path())?;
    node.use_one_processor();
    node.power_on()?;
    let client = node.client();
    let status = client.get_after_boot("the older slot", FALL_BACK_DEADLINE, "status")?;
    let log = fs::read_to_string(records.join("serial-a.log"))?;
    ensure!(log.contains("this node did not start"), "The broken slot says nothing; see {}.", records.display());
    let bad = log.matches(FIRMWARE_START_TEXT).count() - 1;
    println!("    {bad} bad boots, then {}", status["versions"]["dyad"]);
    ensure!(bad == 3, "The broken slot got {bad} chances, not three.");
    let slots = wait::until("the older slot to be blessed", BOOT_DEADLINE, || {
        let slots = slot_names(&records.join("a/system.img"))?;
        let blessed = slots.iter().any(|slot| !slot.contains('+'));
        Ok(if blessed { Poll::Ready(slots) } else { Poll::NotYet(slots.join(" ")) })
    })?;
    println!("    {}", slots.join(" "));
    ensure!(slots.contains(&"dyad-9999+0-3.efi".to_owned()), "The broken slot is not used up: {slots:?}");
    // The next start goes straight to the older slot: the broken slot has no tries left.
    let position = node.serial().position();
    node.reset()?;
    node.serial().wait_for_text(FIRMWARE_START_TEXT, position, BOOT_DEADLINE)?;
    client.get_after_boot("the older slot", BOOT_DEADLINE, "status")?;
    let log = fs::read_to_string(records.join("serial-a.log"))?;
    let starts = log.matches(FIRMWARE_START_TEXT).count();
    ensure!(starts == bad + 2, "The broken slot was tried again: {starts} starts.");
    Ok(())
}

/// File names of the slots on a system disk, whose first partition begins at 1 MiB.
fn slot_names(disk: &Path) -> Result<Vec<String>> {
    let partition = format!("{}@@1M", disk.display());
    let mdir =
        Command::new("mdir").args(["-b", "-i", &partition, "::/EFI/Linux"]).output().context("mtools is missing")?;
    ensure!(mdir.status.success(), "{}", String::from_utf8_lossy(&mdir.stderr));
    let list = String::from_utf8(mdir.stdout)?;
    Ok(list.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect())
}

/// The sentence with which the node refuses these answers.
fn refusal_sentence(client: &Client, answers: &Value) -> Result<String> {
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

fn with_answer(answers: &Value, key: &str, value: Value) -> Value {
    let mut answers = answers.clone();
    answers[key] = value;
    answers
}

fn without_answer(answers: &Value, key: &str) -> Value {
    let mut answers = answers.clone();
    if let Some(map) = answers.as_object_mut() {
        map.remove(key);
    }
    answers
}
