//! The slots of a node, seen from the system that runs in one of them.

use crate::{EntryName, LoaderVariables, Slot, SystemPartition, UpdateError};
use std::io::Read;
use std::path::Path;

/// The slots of a node together with what the boot loader said about this boot.
#[derive(Debug, Clone)]
pub struct Node {
    partition: SystemPartition,
    variables: LoaderVariables,
}

/// What blessing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blessing {
    /// The slot was on trial and is good now.
    Blessed(EntryName),
    /// It had been blessed before.
    AlreadyGood(EntryName),
    /// Another boot loader started this system: there is nothing to bless.
    NotOurs,
}

impl Node {
    /// A node whose system partition is mounted at `boot` and whose EFI variables are files in `variables`.
    pub fn new(boot: &Path, variables: &Path) -> Self {
        Self { partition: SystemPartition::new(boot), variables: LoaderVariables::new(variables) }
    }

    /// This node.
    pub fn here() -> Self {
        Self::new(Path::new("/boot"), Path::new("/sys/firmware/efi/efivars"))
    }

    /// All slots, newest version first.
    pub fn slots(&self) -> Result<Vec<Slot>, UpdateError> {
        self.partition.slots()
    }

    /// The slot this system runs from, under its name of now. `None`: not started by our boot loader.
    pub fn current(&self) -> Result<Option<Slot>, UpdateError> {
        let Some(booted) = self.variables.booted()? else { return Ok(None) };
        let found = self.slots()?.into_iter().find(|slot| slot.name.version == booted.version);
        found.map(Some).ok_or(UpdateError::Missing { version: booted.version })
    }

    /// The slot that the boot loader would fall back to if the current one failed: the newest other good one.
    pub fn fallback(&self) -> Result<Option<Slot>, UpdateError> {
        let current = self.current()?.map(|slot| slot.name);
        Ok(self.slots()?.into_iter().find(|slot| Some(&slot.name) != current.as_ref() && !slot.name.is_bad()))
    }

    /// Whether the slot this system runs from has yet to be blessed.
    pub fn on_trial(&self) -> Result<bool, UpdateError> {
        Ok(self.current()?.is_some_and(|slot| slot.name.counter.is_some()))
    }

    /// Makes the slot that booted the good one. Call it when this boot has proven itself; calling it again is harmless.
    pub fn bless(&self) -> Result<Blessing, UpdateError> {
        let Some(Slot { name, .. }) = self.current()? else { return Ok(Blessing::NotOurs) };
        if name.counter.is_none() {
            return Ok(Blessing::AlreadyGood(name));
        }
        let good = name.blessed();
        self.partition.rename(&name, &good)?;
        Ok(Blessing::Blessed(good))
    }

    /// Writes a new slot next to the one that runs and removes all others. It boots next, on trial.
    pub fn install(&self, version: &str, content: &mut dyn Read) -> Result<EntryName, UpdateError> {
        let target = EntryName::fresh(version).map_err(|_| UpdateError::Version { version: version.into() })?;
        let current = self.current()?.map(|slot| slot.name);
        if current.as_ref().is_some_and(|name| name.version == version) {
            return Err(UpdateError::Running { version: version.into() });
        }
        // Without a boot loader of ours the running slot is not known: then none is removed.
        self.partition.write(&target, content, |name| current.as_ref().is_none_or(|running| running == name))?;
        Ok(target)
    }
}
