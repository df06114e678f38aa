//! Scenarios from two blank nodes to a protected pair with a running guest on each node.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{BOOT_DEADLINE, FIRST_GUEST, GUEST_DEADLINE, PROTECTED_DEADLINE, SECOND_GUEST};
use crate::artifacts::CountingGuest;
use crate::guest::Guest;
use crate::http::Client;
use crate::node::NodeName;
use crate::pair::Pair;
use crate::setup;
use crate::status::{VmState, wait_vm_state};

/// Memory of a guest, in MiB.
const GUEST_MEMORY_MIB: u64 = 128;
/// Promised time from power-on to an answering API, emulated, on an idle machine.
const IDLE_BOOT_DEADLINE: Duration = Duration::from_secs(25);
/// Most bytes that the image may occupy on disk, holes left out.
const IMAGE_LIMIT_BYTES: u64 = 150_000_000;
/// Most bytes of memory that the programs of a node may use, VMs left out.
const MEMORY_LIMIT_BYTES: f64 = 400e6;

/// Node A boots by UEFI from the image and its API answers. Then node B is switched on; it boots while A is set up.
pub fn boot_answers_api(pair: &mut Pair) -> Result<()> {
    let image = pair.report.get("image_bytes").as_u64().context("The image was not measured.")?;
    ensure!(image <= IMAGE_LIMIT_BYTES, "The image has {image} bytes; the promise is {IMAGE_LIMIT_BYTES}.");
    pair.a.power_on()?;
    let took = wait_for_blank_node(pair, NodeName::A)?;
    pair.report.set_time("boot_to_api_s", took);
    if took > IDLE_BOOT_DEADLINE {
        // The build machine may be slow or busy: the time is printed and does not fail the step.
        pair.print_line(&format!("that is more than the {} s of an idle machine", IDLE_BOOT_DEADLINE.as_secs()));
    }
    pair.b.power_on()
}

/// Waits until the API of a blank node answers; returns the time since power-on.
fn wait_for_blank_node(pair: &mut Pair, name: NodeName) -> Result<Duration> {
    let client = pair.node(name).client();
    let setup = client.get_after_boot(&format!("node {name}"), BOOT_DEADLINE, "setup")?;
    ensure!(setup["phase"] == "blank", "Node {name} is not blank: {setup}");
    let took = pair.node(name).on_since()?.elapsed();
    pair.print_line(&format!("node {name} answers at {} after {:.1} s", client.address(), took.as_secs_f64()));
    Ok(took)
}

/// The pair forms through the setup API: node A as the first node with the witness's one-time code, node B with the
/// pairing code.
pub fn pair_forms_protected(pair: &mut Pair) -> Result<()> {
    let start = Instant::now();
    let code = pair.witness.code()?;
    let address = pair.witness.address();
    setup::create_pair(&pair.a.client(), setup::Witness { address: &address, code: &code })
        .context("Node A did not become the first node")?;
    pair.print_line("node A is set up; the witness is enrolled");
    let code = setup::pairing_code(&pair.client(NodeName::A))?;
    pair.print_line(&format!("node A shows the pairing code {code}"));
    wait_for_blank_node(pair, NodeName::B)?;
    setup::join(&pair.b.client(), &code).context("Node B did not join")?;
    pair.print_line("node B has joined");
    pair.wait_protected(PROTECTED_DEADLINE)?;
    pair.report.set_time("wizard_to_protected_s", start.elapsed());
    let status = pair.status(NodeName::A)?;
    ensure!(status.members() == "AB", "The in-sync set is {}.", status.members());
    pair.print_line(&format!("protected: yes (epoch {}): {}", status.epoch, status.sentence));
    Ok(())
}

/// A VM on each node counts on a mirrored volume. The time until the first one counts is measured.
pub fn vm_runs_and_acks(pair: &mut Pair) -> Result<()> {
    let start = Instant::now();
    let first = create_vm(pair, FIRST_GUEST, NodeName::A, CountingGuest::Bare)?;
    // The second volume is filled while the first VM boots.
    let second = create_vm(pair, SECOND_GUEST, NodeName::B, CountingGuest::Bare)?;
    let (seen, counter) = first.wait_for_ack(start, GUEST_DEADLINE)?;
    let accepted = seen.duration_since(start);
    pair.report.set_time("guest_boot_s", accepted);
    pair.print_line(&format!(
        "{FIRST_GUEST} runs on node A; counter {counter} acknowledged after {:.1} s",
        accepted.as_secs_f64()
    ));
    second.wait_for_ack(start, GUEST_DEADLINE)?;
    pair.print_line(&format!("{SECOND_GUEST} runs on node B"));
    let counter = first.wait_for_progress(15, GUEST_DEADLINE)?;
    pair.print_line(&format!("{FIRST_GUEST} goes on: counter {counter}"));
    measure_memory(pair)?;
    for name in [NodeName::A, NodeName::B] {
        let details = pair.status(name)?.json["details"].clone();
        // A node's guests must run under KVM, also where the node is emulated: without it a guest takes minutes to boot.
        ensure!(details["hardware_virtualisation"] == true, "VMs are emulated on node {name}: {details}");
    }
    for guest in [first, second] {
        let boots = guest.record().boots().len();
        ensure!(boots == 1, "{} was restarted {} times although nothing failed.", guest.name(), boots - 1);
    }
    pair.check_guests()
}

/// Creates a mirrored volume with the image of `guest` and a VM on it that runs on `node`. The VM's serial line is recorded
/// from its first line on.
///
/// # Errors
/// The node refuses.
pub fn create_vm(pair: &mut Pair, vm: &str, node: NodeName, guest: CountingGuest) -> Result<Guest> {
    let start = Instant::now();
    let image = pair.artifacts().guest(guest);
    let size = std::fs::metadata(&image)?.len();
    let client = pair.client(node);
    client.post("volumes", &json!({"name": vm, "size": size})).context("The volume was refused")?;
    let import = client.put_file(&format!("volumes/{vm}/content"), &image).context("The image was refused")?;
    ensure!(import["bytes"] == size, "The import says {import}.");
    pair.print_line(&format!("the image of {vm} is on both nodes after {:.1} s", start.elapsed().as_secs_f64()));
    let guest = pair.follow_guest(vm)?;
    put_vm(&client, vm, node)?;
    Ok(guest)
}

/// Creates a VM that runs on `node`, on the existing volume of the same name.
///
/// # Errors
/// The node refuses.
pub fn put_vm(client: &Client, vm: &str, node: NodeName) -> Result<()> {
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

/// Kills a VM, waits until it is stopped, and deletes it; its volume stays.
///
/// # Errors
/// The node refuses, or the VM is not stopped in time.
pub fn delete_vm(client: &Client, vm: &str) -> Result<()> {
    client.post(&format!("vms/{vm}/kill"), &json!({})).context("The VM was not stopped")?;
    wait_vm_state(client, vm, VmState("stopped"), GUEST_DEADLINE)?;
    client.delete(&format!("vms/{vm}")).context("The VM was not deleted").map(drop)
}

/// Reports the memory that the node's own programs use, VMs left out: the larger figure of the two nodes.
fn measure_memory(pair: &mut Pair) -> Result<()> {
    for name in [NodeName::A, NodeName::B] {
        let metrics = pair.client(name).metrics()?;
        let bytes = metrics
            .lines()
            .find_map(|line| line.strip_prefix("dyad_management_rss_bytes "))
            .and_then(|value| value.trim().parse::<f64>().ok())
            .context("The metrics tell no dyad_management_rss_bytes.")?;
        pair.report.set_max("management_rss_bytes", bytes as u64);
        ensure!(
            bytes <= MEMORY_LIMIT_BYTES,
            "Node {name} takes {bytes} bytes for itself; the promise is {MEMORY_LIMIT_BYTES}."
        );
    }
    Ok(())
}
