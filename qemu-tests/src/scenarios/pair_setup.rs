//! From two flashed servers to a protected pair with running guests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{BOOT_DEADLINE, FIRST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND};
use crate::guest::Guest;
use crate::http::Client;
use crate::node::Name;
use crate::pair::Pair;
use crate::setup;
use crate::status::{VmState, wait_vm_state};

/// Although the node is emulated, its guests must run under KVM: without it a guest takes minutes to boot.
const GUEST_MEMORY_MIB: u64 = 128;
/// From power-on to an answering API, emulated.
const IDLE_BOOT_DEADLINE: Duration = Duration::from_secs(25);
/// Limit of the bytes of the image that have to be stored or sent.
const IMAGE_LIMIT: u64 = 150_000_000;
/// Limit of a node's memory without that of its guests, in bytes.
const MEMORY_LIMIT: f64 = 400e6;

/// A node boots through UEFI from the image and answers on its API; the other one gets power then, and boots while the
/// first one is set up, as with an operator who switches on the servers one after the other.
pub fn boot_answers_api(pair: &mut Pair) -> Result<()> {
    let image = pair.report.get("image_bytes").as_u64().context("The image was not measured.")?;
    ensure!(image <= IMAGE_LIMIT, "The image has {image} bytes; the promise is {IMAGE_LIMIT}.");
    pair.a.power_on()?;
    let took = answers_blank(pair, Name::A)?;
    pair.report.set_time("boot_to_api_s", took);
    if took > IDLE_BOOT_DEADLINE {
        // The speed of an emulated processor is not the product's: it is reported and does not fail the run.
        pair.say(&format!("that is more than the {} s of an idle machine", IDLE_BOOT_DEADLINE.as_secs()));
    }
    pair.b.power_on()
}

/// Waits until a blank node answers; returns the time since power-on.
fn answers_blank(pair: &mut Pair, name: Name) -> Result<Duration> {
    let client = pair.node(name).client();
    let setup = client.get_after_boot(&format!("node {name}"), BOOT_DEADLINE, "setup")?;
    ensure!(setup["phase"] == "blank", "Node {name} is not blank: {setup}");
    let took = pair.node(name).on_since()?.elapsed();
    pair.say(&format!("node {name} answers at {} after {:.1} s", client.address(), took.as_secs_f64()));
    Ok(took)
}

/// Node A through the web wizard's API, node B by joining with the pairing code, the witness by its one-time code.
pub fn pair_forms_protected(pair: &mut Pair) -> Result<()> {
    let start = Instant::now();
    let code = pair.witness.code()?;
    let address = pair.witness.address();
    setup::create_pair(&pair.a.client(), setup::Witness { address: &address, code: &code })
        .context("Node A did not become the first node")?;
    pair.say("node A is set up; the witness is enrolled");
    let code = setup::pairing_code(&pair.client(Name::A))?;
    pair.say(&format!("node A shows the pairing code {code}"));
    answers_blank(pair, Name::B)?;
    setup::join(&pair.b.client(), &code).context("Node B did not join")?;
    pair.say("node B has joined");
    pair.wait_protected(PROTECTED_DEADLINE)?;
    pair.report.set_time("wizard_to_protected_s", start.elapsed());
    let status = pair.status(Name::A)?;
    ensure!(status.members() == "AB", "The in-sync set is {}.", status.members());
    pair.say(&format!("protected: yes (epoch {}): {}", status.epoch, status.sentence));
    Ok(())
}

/// A VM on each node, on mirrored volumes; the first one is timed.
pub fn vm_runs_and_acks(pair: &mut Pair) -> Result<()> {
    let start = Instant::now();
    let first = create_vm(pair, FIRST, Name::A)?;
    // The second one's volume is filled while the first one boots.
    let second = create_vm(pair, SECOND, Name::B)?;
    let (seen, counter) = first.wait_for_ack(start, GUEST_DEADLINE)?;
    let accepted = seen.duration_since(start);
    pair.report.set_time("guest_boot_s", accepted);
    pair.say(&format!("{FIRST} runs on node A; counter {counter} acknowledged after {:.1} s", accepted.as_secs_f64()));
    second.wait_for_ack(start, GUEST_DEADLINE)?;
    pair.say(&format!("{SECOND} runs on node B"));
    let counter = first.wait_for_progress(15, GUEST_DEADLINE)?;
    pair.say(&format!("{FIRST} goes on: counter {counter}"));
    measure_memory(pair)?;
    for name in [Name::A, Name::B] {
        let details = pair.status(name)?.json["details"].clone();
        ensure!(details["hardware_virtualisation"] == true, "VMs are emulated on node {name}: {details}");
    }
    for guest in [first, second] {
        let boots = guest.record().boots().len();
        ensure!(boots == 1, "{} was restarted {} times although nothing failed.", guest.name(), boots - 1);
    }
    pair.judge_guests()
}

/// Makes a mirrored volume from the guest image and a VM on it that runs on `node`. The VM's serial line is followed
/// from the
/// first line on.
///
/// # Errors
/// The node refuses.
pub fn create_vm(pair: &mut Pair, vm: &str, node: Name) -> Result<Guest> {
    let start = Instant::now();
    let image = pair.artifacts().guest();
    let size = std::fs::metadata(&image)?.len();
    let client = pair.client(node);
    client.post("volumes", &json!({"name": vm, "size": size})).context("The volume was refused")?;
    let import = client.put_file(&format!("volumes/{vm}/content"), &image).context("The image was refused")?;
    ensure!(import["bytes"] == size, "The import says {import}.");
    pair.say(&format!("the image of {vm} is on both nodes after {:.1} s", start.elapsed().as_secs_f64()));
    let guest = pair.follow(vm)?;
    put_vm(&client, vm, node)?;
    Ok(guest)
}

/// Makes a VM on the existing volume of the same name.
///
/// # Errors
/// The node refuses.
pub fn put_vm(client: &Client, vm: &str, node: Name) -> Result<()> {
    let machine = json!({
        "name": vm,
        "cpus": 1,
        "memory_mib": GUEST_MEMORY_MIB,
        "firmware": "bios",
        "disks": [vm],
        "node": node.to_string(),
    });
    client.post("vms", &machine).context("The VM was refused").map(drop)
}

/// Kills a VM and deletes it; its volume stays.
///
/// # Errors
/// The node refuses.
pub fn delete_vm(client: &Client, vm: &str) -> Result<()> {
    client.post(&format!("vms/{vm}/kill"), &json!({})).context("The VM was not stopped")?;
    wait_vm_state(client, vm, VmState("stopped"), GUEST_DEADLINE)?;
    client.delete(&format!("vms/{vm}")).context("The VM was not deleted").map(drop)
}

/// The memory of everything that is not a guest, the larger of the two nodes.
fn measure_memory(pair: &mut Pair) -> Result<()> {
    for name in [Name::A, Name::B] {
        let metrics = pair.client(name).metrics()?;
        let bytes = metrics
            .lines()
            .find_map(|line| line.strip_prefix("dyad_management_rss_bytes "))
            .and_then(|value| value.trim().parse::<f64>().ok())
            .context("The metrics tell no dyad_management_rss_bytes.")?;
        pair.report.raise("management_rss_bytes", bytes as u64);
        ensure!(bytes <= MEMORY_LIMIT, "Node {name} takes {bytes} bytes for itself; the promise is {MEMORY_LIMIT}.");
    }
    Ok(())
}
