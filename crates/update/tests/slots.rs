//! The slots of a node during updates, good boots and failed boots, with a directory in place of the system partition.

use dyad_update::{Blessing, LoaderVariables, NodeSlots, SystemPartition, UpdateError};
use std::path::{Path, PathBuf};

const COUNTED: &str = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const SELECTED: &str = "LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

struct Disk {
    root: tempfile::TempDir,
}

impl Disk {
    fn with(slots: &[&str]) -> Self {
        let disk = Self { root: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir_all(disk.slot("")).expect("the partition");
        std::fs::create_dir_all(disk.vars()).expect("variables");
        for name in slots {
            std::fs::write(disk.slot(name), name).expect("a slot");
        }
        disk
    }

    fn slot(&self, name: &str) -> PathBuf {
        self.root.path().join("boot/EFI/Linux").join(name)
    }

    fn vars(&self) -> PathBuf {
        self.root.path().join("vars")
    }

    fn node(&self) -> NodeSlots {
        NodeSlots::new(SystemPartition::new(&self.root.path().join("boot")), LoaderVariables::new(&self.vars()))
    }

    fn variable(&self, name: &str, value: Option<&str>) {
        let path: &Path = &self.vars().join(name);
        match value {
            None => drop(std::fs::remove_file(path)),
            Some(value) => {
                let bytes: Vec<u8> =
                    [6, 0, 0, 0].into_iter().chain(value.encode_utf16().flat_map(u16::to_le_bytes)).collect();
                std::fs::write(path, bytes).expect("a variable");
            }
        }
    }

    /// Does what the boot loader does: chooses the newest slot that has tries left or is blessed, counts one try, and
    /// sets its variables. Returns the name of the slot.
    fn boot(&self) -> String {
        let slots = self.node().slots().expect("slots");
        let picked = slots.iter().find(|slot| !slot.name.has_no_tries_left()).unwrap_or(&slots[0]);
        let mut name = picked.name.clone();
        if let Some(counter) = &mut name.counter {
            counter.left = counter.left.saturating_sub(1);
            counter.done += 1;
            std::fs::rename(self.slot(&picked.name.to_string()), self.slot(&name.to_string())).expect("a count");
        }
        let path = format!("\\EFI\\Linux\\{name}");
        self.variable(COUNTED, name.counter.map(|_| path.as_str()));
        self.variable(SELECTED, Some(&name.blessed().to_string()));
        name.to_string()
    }

    fn names(&self) -> Vec<String> {
        self.node().slots().expect("slots").into_iter().map(|slot| slot.name.to_string()).collect()
    }
}

#[test]
fn blessing_removes_the_counter_and_a_second_call_changes_nothing() {
    let disk = Disk::with(&["dyad-0.1.0+3-0.efi"]);
    assert_eq!(disk.boot(), "dyad-0.1.0+2-1.efi");
    assert!(disk.node().on_trial().expect("known"));
    let good = "dyad-0.1.0.efi".parse().expect("a name");
    assert_eq!(disk.node().bless().expect("blessed"), Blessing::Blessed(good));
    assert_eq!(disk.names(), ["dyad-0.1.0.efi"]);
    // The boot loader's variable still holds the counted name.
    assert!(matches!(disk.node().bless(), Ok(Blessing::AlreadyGood(_))));
    assert!(!disk.node().on_trial().expect("known"));
    assert_eq!(disk.boot(), "dyad-0.1.0.efi");
}

#[test]
fn after_three_failed_boots_of_a_new_slot_the_old_one_is_booted() {
    let disk = Disk::with(&["dyad-0.1.0.efi"]);
    disk.boot();
    disk.node().install("0.2.0", &mut &b"new"[..]).expect("installed");
    for expected in ["dyad-0.2.0+2-1.efi", "dyad-0.2.0+1-2.efi", "dyad-0.2.0+0-3.efi", "dyad-0.1.0.efi"] {
        assert_eq!(disk.boot(), expected);
    }
    assert_eq!(disk.node().fallback().expect("known"), None, "a slot without tries is no fallback");
}

#[test]
fn installing_keeps_only_the_running_slot_and_the_new_one() {
    let disk = Disk::with(&["dyad-0.1.0.efi", "dyad-0.3.0+0-3.efi"]);
    std::fs::write(disk.slot("incoming.tmp"), "half a slot").expect("leftover");
    disk.boot();
    let name = disk.node().install("0.3.1", &mut &b"new system"[..]).expect("installed");
    assert_eq!(disk.names(), ["dyad-0.3.1+3-0.efi", "dyad-0.1.0.efi"]);
    assert_eq!(std::fs::read(disk.slot(&name.to_string())).expect("written"), b"new system");
    assert!(!disk.slot("incoming.tmp").exists());
    assert_eq!(disk.node().fallback().expect("known").expect("one").name, name);
}

#[test]
fn the_running_version_and_an_invalid_version_cannot_be_installed() {
    let disk = Disk::with(&["dyad-0.1.0.efi"]);
    disk.boot();
    let refused = disk.node().install("0.1.0", &mut &b"x"[..]);
    assert!(matches!(refused, Err(UpdateError::Running { .. })), "{refused:?}");
    let refused = disk.node().install("../../x", &mut &b"x"[..]);
    assert!(matches!(refused, Err(UpdateError::Version { .. })), "{refused:?}");
    assert_eq!(std::fs::read(disk.slot("dyad-0.1.0.efi")).expect("kept"), b"dyad-0.1.0.efi");
}

#[test]
fn blessing_fails_if_the_running_slot_is_not_on_the_partition() {
    let disk = Disk::with(&["dyad-0.1.0.efi"]);
    disk.boot();
    std::fs::remove_file(disk.slot("dyad-0.1.0.efi")).expect("removed");
    assert!(matches!(disk.node().bless(), Err(UpdateError::Missing { .. })));
}

#[test]
fn a_system_started_by_another_boot_loader_blesses_no_slot() {
    let disk = Disk::with(&["dyad-0.1.0+3-0.efi"]);
    assert_eq!(disk.node().bless().expect("harmless"), Blessing::NotOurs);
    assert_eq!(disk.names(), ["dyad-0.1.0+3-0.efi"]);
}
