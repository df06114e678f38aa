//! Tests of [`apply`]: each refusal has its sentence, and no series of changes violates an invariant.

use dyad_desired::{
    Change, Document, Firmware, Intent, NodeRecord, Policies, Refusal, VmConfig, apply, fail_over, limits,
};
use dyad_types::{NodeId, VolumeId};
use proptest::prelude::*;

fn record(name: &str, usable_memory_mib: u64) -> NodeRecord {
    NodeRecord { name: name.into(), addresses: vec![], usable_memory_mib, usable_cpus: 4 }
}

fn pair() -> Document {
    let new_pair = Document::new_pair("pair", record("left", 1000), "$argon2id$x").unwrap();
    apply(&new_pair, &Change::SetNode { node: NodeId::B, record: record("right", 900) }).unwrap()
}

fn volume(name: &str, size: u64, primary: NodeId) -> Change {
    Change::CreateVolume { name: name.into(), size, primary }
}

fn new_vm(memory_mib: u32, disks: &[&str]) -> VmConfig {
    VmConfig {
        cpus: 1,
        memory_mib,
        firmware: Firmware::Uefi,
        disks: disks.iter().map(|d| (*d).to_owned()).collect(),
        node: NodeId::A,
        intent: Intent::Running,
        priority: 50,
        ha: true,
    }
}

fn begin(name: &str) -> Change {
    Change::BeginImport { name: name.into() }
}

fn finish(name: &str, id: VolumeId) -> Change {
    Change::FinishImport { name: name.into(), id }
}

fn vm(name: &str, memory_mib: u32, disks: &[&str]) -> Change {
    Change::CreateVm { name: name.into(), vm: new_vm(memory_mib, disks) }
}

fn delete_vm(name: &str, node: NodeId, changed: u64) -> Change {
    Change::DeleteVm { name: name.into(), node, changed }
}

fn set_intent(name: &str, intent: Intent) -> Change {
    Change::SetIntent { name: name.into(), intent }
}

fn sentence(document: &Document, change: &Change) -> String {
    apply(document, change).expect_err("accepted").to_string()
}

#[test]
fn each_refusal_is_one_sentence() {
    let mut document = apply(&pair(), &volume("disk", limits::MIB, NodeId::B)).unwrap();
    document = apply(&document, &vm("web", 300, &["disk"])).unwrap();
    document = apply(&document, &volume("other", limits::MIB, NodeId::B)).unwrap();
    document = apply(&document, &begin("other")).unwrap();
    let cases = [
        (begin("disk"), "The volume disk is a disk of the VM web: delete that VM first."),
        (begin("none"), "There is no volume named none."),
        (vm("x", 64, &["other"]), "An image is being sent into the volume other: wait until the import ends."),
        (finish("other", VolumeId(2)), "The import into the volume other was cancelled: send the image again."),
        (finish("disk", VolumeId(3)), "The import into the volume disk was cancelled: send the image again."),
        (volume("disk", limits::MIB, NodeId::A), "A volume named disk exists already: choose another name."),
        (volume("Disk", limits::MIB, NodeId::A), "The name \"Disk\" cannot be used:"),
        (volume("d", 5000, NodeId::A), "The size of a volume must be from 1 to 67108864 MiB, and 0 was given."),
        (volume("d", limits::MIB + 1, NodeId::A), "a whole number of MiB (1048576 bytes), and 1048577 bytes"),
        (
            Change::DeleteVolume { name: "disk".into() },
            "The volume disk is a disk of the VM web: delete that VM first.",
        ),
        (Change::DeleteVolume { name: "none".into() }, "There is no volume named none."),
        (vm("web", 64, &[]), "A VM named web exists already: choose another name."),
        (vm("x", 64, &["disk"]), "The volume disk is a disk of the VM web: delete that VM first."),
        (vm("x", 64, &["none"]), "There is no volume named none."),
        (vm("x", 8, &[]), "The memory of a VM must be from 32 to 4194304 MiB, and 8 was given."),
        (
            vm("big", 600, &[]),
            "The VM big does not fit: all VMs together would need 1028 MiB, and one node has 900 MiB for VMs when the other one is lost.",
        ),
        (
            Change::CreateVm { name: "wide".into(), vm: VmConfig { cpus: 5, ..new_vm(64, &[]) } },
            "The VM wide does not fit: it has 5 CPUs, and one node has 4 when the other one is lost.",
        ),
        (
            Change::CreateVm { name: "wide".into(), vm: VmConfig { cpus: 129, ..new_vm(64, &[]) } },
            "The number of CPUs must be from 1 to 128 CPUs, and 129 was given.",
        ),
        (delete_vm("web", NodeId::A, 4), "The VM web is meant to run: stop it first."),
        (Change::SetIntent { name: "none".into(), intent: Intent::Running }, "There is no VM named none."),
        (
            Change::SetNode { node: NodeId::B, record: record("left", 1) },
            "A node named left exists already: choose another name.",
        ),
        (
            Change::SetPolicies { policies: Policies { shutdown_grace_s: 0 } },
            "The time to shut down must be from 1 to 3600 seconds, and 0 was given.",
        ),
    ];
    for (change, expected) in cases {
        let text = sentence(&document, &change);
        assert!(text.contains(expected), "{change:?}: {text}");
        assert!(text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_volume_follows_the_node_of_its_vm() {
    let document = apply(&pair(), &volume("disk", limits::MIB, NodeId::B)).unwrap();
    let document = apply(&document, &vm("web", 300, &["disk"])).unwrap();
    assert_eq!(document.volumes["disk"].primary, NodeId::A);
    let moved = fail_over(&document, NodeId::B);
    assert_eq!(moved.vms["web"].config.node, NodeId::B);
    assert_eq!(moved.volumes["disk"].primary, NodeId::B);
    assert_eq!(moved.vms["web"].config.intent, Intent::Running);
    assert_eq!(moved.generation, document.generation + 1);
}

/// An import that was cancelled or replaced by a newer one leaves the old content; only a complete image replaces it.
#[test]
fn a_finished_import_replaces_the_content_in_one_change() {
    let volume_ids = |document: &Document| document.volume_sizes().into_keys().collect::<Vec<_>>();
    let made = apply(&pair(), &volume("disk", limits::MIB, NodeId::B)).unwrap();
    let begun = apply(&made, &begin("disk")).unwrap();
    assert_eq!((begun.volumes["disk"].id, volume_ids(&begun)), (VolumeId(1), vec![VolumeId(1), VolumeId(2)]));
    let dropped = apply(&begun, &Change::DropImport { name: "disk".into(), id: VolumeId(2) }).unwrap();
    assert_eq!((&dropped.volumes, volume_ids(&dropped)), (&made.volumes, vec![VolumeId(1)]));
    let again = apply(&begun, &begin("disk")).unwrap();
    assert_eq!((again.volumes["disk"].id, volume_ids(&again)), (VolumeId(1), vec![VolumeId(1), VolumeId(3)]));
    assert_eq!(apply(&again, &finish("disk", VolumeId(2))), Err(Refusal::NoImage { volume: "disk".into() }));
    let deleted = apply(&again, &Change::DeleteVolume { name: "disk".into() }).unwrap();
    assert!(volume_ids(&deleted).is_empty());
    let moved = fail_over(&again, NodeId::A);
    let done = apply(&moved, &finish("disk", VolumeId(3))).unwrap();
    assert_eq!(
        (done.volumes["disk"].id, done.volumes["disk"].primary, volume_ids(&done)),
        (VolumeId(3), NodeId::A, vec![VolumeId(3)])
    );
    apply(&done, &vm("web", 300, &["disk"])).unwrap();
}

#[test]
fn a_vm_without_ha_is_stopped_on_the_survivor() {
    let wanted = VmConfig { ha: false, ..new_vm(64, &[]) };
    let document = apply(&pair(), &Change::CreateVm { name: "web".into(), vm: wanted }).unwrap();
    assert_eq!(fail_over(&document, NodeId::B).vms["web"].config.intent, Intent::Stopped);
    assert_eq!(fail_over(&document, NodeId::A).vms["web"].config.intent, Intent::Running);
}

#[test]
fn a_volume_for_a_node_that_has_not_joined_is_refused() {
    let alone = Document::new_pair("pair", record("left", 0), "$argon2id$x").unwrap();
    assert_eq!(apply(&alone, &volume("d", limits::MIB, NodeId::B)), Err(Refusal::NoNode { node: NodeId::B }));
}

#[test]
fn volume_ids_are_never_reused() {
    let document = apply(&pair(), &volume("a", limits::MIB, NodeId::A)).unwrap();
    let document = apply(&document, &Change::DeleteVolume { name: "a".into() }).unwrap();
    let document = apply(&document, &volume("a", limits::MIB, NodeId::A)).unwrap();
    assert_eq!(document.volumes["a"].id, VolumeId(2));
}

/// The VM's node has looked for a process in one state of the VM; in any other state there may be one.
#[test]
fn a_vm_that_was_changed_since_its_node_found_no_process_is_not_deleted() {
    let made = apply(&pair(), &vm("web", 300, &[])).unwrap();
    let stopped = apply(&made, &set_intent("web", Intent::Stopped)).unwrap();
    let seen = delete_vm("web", NodeId::A, stopped.vms["web"].changed);
    assert!(apply(&stopped, &seen).unwrap().vms.is_empty());
    let started = apply(&stopped, &set_intent("web", Intent::Running)).unwrap();
    let stopped_again = apply(&started, &set_intent("web", Intent::Stopped)).unwrap();
    assert_eq!(apply(&stopped_again, &seen), Err(Refusal::VmChanged { name: "web".into() }));
    let moved = fail_over(&stopped, NodeId::B);
    assert_eq!(apply(&moved, &seen), Err(Refusal::VmChanged { name: "web".into() }));
    assert_eq!(
        apply(&stopped, &delete_vm("web", NodeId::B, stopped.vms["web"].changed)),
        Err(Refusal::VmChanged { name: "web".into() })
    );
    // A change of another VM does not count.
    let other = apply(&stopped, &vm("mail", 300, &[])).unwrap();
    assert_eq!(apply(&other, &seen).unwrap().vms.len(), 1);
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-d]", 1 => "[A-Z ]{0,3}", 1 => Just("x".repeat(33))]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![Just(NodeId::A), Just(NodeId::B)]
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![Just(Intent::Running), Just(Intent::Stopped), Just(Intent::GuestShutDown)]
}

fn wanted() -> impl Strategy<Value = VmConfig> {
    let disks = proptest::collection::vec(names(), 0..4);
    (0u32..6, 0u32..500, disks, node(), intent(), any::<u8>(), any::<bool>()).prop_map(
        |(cpus, memory_mib, disks, node, intent, priority, ha)| VmConfig {
            cpus,
            memory_mib,
            firmware: Firmware::Bios,
            disks,
            node,
            intent,
            priority,
            ha,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (node(), names(), 0u64..2000).prop_map(|(node, name, m)| Change::SetNode { node, record: record(&name, m) }),
        (names(), 0u64..4, 0u64..2, node()).prop_map(|(n, mib, odd, primary)| volume(
            &n,
            mib * limits::MIB + odd,
            primary
        )),
        names().prop_map(|name| Change::DeleteVolume { name }),
        names().prop_map(|name| Change::BeginImport { name }),
        (names(), 0u64..12).prop_map(|(name, id)| Change::FinishImport { name, id: VolumeId(id) }),
        (names(), 0u64..12).prop_map(|(name, id)| Change::DropImport { name, id: VolumeId(id) }),
        (names(), wanted()).prop_map(|(name, vm)| Change::CreateVm { name, vm }),
        (names(), node(), 0u64..40).prop_map(|(name, node, changed)| delete_vm(&name, node, changed)),
        (names(), intent()).prop_map(|(name, intent)| Change::SetIntent { name, intent }),
        node().prop_map(|survivor| Change::FailOver { survivor }),
        (names(), ".{0,4}").prop_map(|(user, password_hash)| Change::SetPassword { user, password_hash }),
    ]
}

proptest! {
    #[test]
    fn no_series_of_changes_violates_an_invariant(changes in proptest::collection::vec(change(), 1..40)) {
        let mut document = pair();
        let mut ids = std::collections::BTreeMap::new();
        for change in &changes {
            let before = document.clone();
            // Every second deletion knows the present state of its VM: others are refused.
            let change = &match change {
                Change::DeleteVm { name, changed, .. } if changed % 2 == 0 && document.vms.contains_key(name) => {
                    let vm = &document.vms[name];
                    delete_vm(name, vm.config.node, vm.changed)
                }
                other => other.clone(),
            };
            match apply(&document, change) {
                Err(refusal) => {
                    let text = refusal.to_string();
                    prop_assert!(text.ends_with('.') && !text.contains('\n'), "{}", text);
                }
                Ok(new) => {
                    prop_assert_eq!(new.check(), Ok(()));
                    prop_assert_eq!(new.generation, before.generation + 1);
                    for (name, volume) in &new.volumes {
                        for id in volume.ids() {
                            let node = ids.entry(id).or_insert_with(|| name.clone());
                            prop_assert_eq!(&*node, name, "one id, two volumes");
                        }
                    }
                    document = new;
                }
            }
        }
    }
}
