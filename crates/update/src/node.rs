//! The slots of a node, read and changed by the system that runs from one of them.

use crate::{EntryName, LoaderVariables, Slot, SystemPartition, UpdateError};
use std::io::Read;
use std::path::Path;

/// The slots on the system partition of a node, together with the boot loader's report of this boot.
#[derive(Debug, Clone)]
pub struct NodeSlots {
    partition: SystemPartition,
    variables: LoaderVariables,
}

/// The result of [`NodeSlots::bless`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blessing {
    /// The slot was on trial and is blessed now.
    Blessed(EntryName),
    /// The slot was blessed before.
    AlreadyGood(EntryName),
    /// Another boot loader started this system, so there is no slot to bless.
    NotOurs,
}

impl NodeSlots {
    /// The slots on this partition, with the report in these EFI variables.
    pub fn new(partition: SystemPartition, variables: LoaderVariables) -> Self {
        Self { partition, variables }
    }

    /// The slots of the machine that this program runs on: `/boot`, and its EFI variables.
    pub fn of_this_machine() -> Self {
        let variables = LoaderVariables::new(Path::new("/sys/firmware/efi/efivars"));
        Self::new(SystemPartition::new(Path::new("/boot")), variables)
    }

    /// All slots, newest version first.
    ///
    /// # Errors
    /// [`UpdateError::Partition`] if the directory cannot be read.
    pub fn slots(&self) -> Result<Vec<Slot>, UpdateError> {
        self.partition.slots()
    }

    /// The slot that this system was started from, with its present name. `None`: another boot loader started this
    /// system.
    ///
    /// # Errors
    /// [`UpdateError::Variable`] or [`UpdateError::Partition`] if they cannot be read; [`UpdateError::Missing`] if the
    /// slot is not on the partition.
    pub fn current(&self) -> Result<Option<Slot>, UpdateError> {
        let Some(booted) = self.variables.booted()? else { return Ok(None) };
        let found = self.slots()?.into_iter().find(|slot| slot.name.version == booted.version);
        found.map(Some).ok_or(UpdateError::Missing { version: booted.version })
    }

    /// The slot that the boot loader would boot if the current one failed: of the other slots, the newest that has
    /// tries left or is blessed.
    ///
    /// # Errors
    /// As [`NodeSlots::current`].
    pub fn fallback(&self) -> Result<Option<Slot>, UpdateError> {
        let current = self.current()?.map(|slot| slot.name);
        Ok(self
            .slots()?
            .into_iter()
            .find(|slot| Some(&slot.name) != current.as_ref() && !slot.name.has_no_tries_left()))
    }

    /// Whether the running slot still has a counter, because it is not blessed yet.
    ///
    /// # Errors
    /// As [`NodeSlots::current`].
    pub fn on_trial(&self) -> Result<bool, UpdateError> {
        Ok(self.current()?.is_some_and(|slot| slot.name.counter.is_some()))
    }

    /// Blesses the running slot. The caller decides that this boot is good. Further calls change nothing.
    ///
    /// # Errors
    /// As [`NodeSlots::current`]; [`UpdateError::Partition`] if the slot cannot be renamed.
    pub fn bless(&self) -> Result<Blessing, UpdateError> {
        let Some(Slot { name, .. }) = self.current()? else { return Ok(Blessing::NotOurs) };
        if name.counter.is_none() {
            return Ok(Blessing::AlreadyGood(name));
        }
        let good = name.blessed();
        self.partition.rename(&name, &good)?;
        Ok(Blessing::Blessed(good))
    }

    /// Removes all slots but the running one, or no slot if the running system was started from none, and writes a new one,
    /// with [`INITIAL_TRIES`](crate::INITIAL_TRIES) tries. The boot loader starts it next if its version is newer than the
    /// running one.
    ///
    /// # Errors
    /// [`UpdateError::Version`] for a version that cannot be part of a file name, [`UpdateError::Running`] if that
    /// version is running, otherwise as [`NodeSlots::current`] or if the slot cannot be written.
    pub fn install(&self, version: &str, content: &mut dyn Read) -> Result<EntryName, UpdateError> {
        let target = EntryName::fresh(version).map_err(|_| UpdateError::Version { version: version.into() })?;
        let current = self.current()?.map(|slot| slot.name);
        if current.as_ref().is_some_and(|name| name.version == version) {
            return Err(UpdateError::Running { version: version.into() });
        }
        // If another boot loader started this system, the running slot is unknown and no slot is removed.
        self.partition.write(&target, content, |name| current.as_ref().is_none_or(|running| running == name))?;
        Ok(target)
    }
}
