//! The EFI variables in which the boot loader reports the slot that it started.

use crate::{EntryName, UpdateError};
use std::io;
use std::path::{Path, PathBuf};

/// Vendor GUID of the boot loader interface variables (systemd's *Boot Loader Interface*).
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The boot loader's EFI variables, read as files of efivarfs.
#[derive(Debug, Clone)]
pub struct LoaderVariables {
    directory: PathBuf,
}

impl LoaderVariables {
    /// Variables that are read below `directory`; on a node that is `/sys/firmware/efi/efivars`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.into() }
    }

    /// The slot that was booted, with its counter at that time. `None`: no variable names a slot, so another boot
    /// loader started this system.
    ///
    /// # Errors
    /// [`UpdateError::Variable`] if a variable exists and cannot be read.
    pub fn booted(&self) -> Result<Option<EntryName>, UpdateError> {
        // `LoaderBootCountPath` has the counter, but exists only for a slot with one. `LoaderEntrySelected` always
        // exists, but may lack the counter.
        for name in ["LoaderBootCountPath", "LoaderEntrySelected"] {
            if let Some(path) = self.read(name)? {
                let file = path.rsplit(['\\', '/']).next().unwrap_or_default();
                if let Ok(entry) = file.parse() {
                    return Ok(Some(entry));
                }
            }
        }
        Ok(None)
    }

    /// The GUID of the partition from which the firmware read the boot loader, in lower case. `None`: not reported.
    ///
    /// # Errors
    /// [`UpdateError::Variable`] if the variable exists and cannot be read.
    pub fn loader_partition(&self) -> Result<Option<String>, UpdateError> {
        Ok(self.read("LoaderDevicePartUUID")?.map(|id| id.to_ascii_lowercase()))
    }

    fn read(&self, name: &'static str) -> Result<Option<String>, UpdateError> {
        match std::fs::read(self.directory.join(format!("{name}-{VENDOR}"))) {
            Ok(bytes) => Ok(Some(decode_text(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(UpdateError::Variable { name, source }),
        }
    }
}

/// Decodes a variable: 4 bytes of attributes, then UTF-16LE that may end with a zero.
fn decode_text(bytes: &[u8]) -> String {
    let units: Vec<u16> =
        bytes.get(4..).unwrap_or_default().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> (tempfile::TempDir, LoaderVariables) {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, value) in pairs {
            let mut bytes = vec![6, 0, 0, 0];
            value.encode_utf16().chain([0]).for_each(|unit| bytes.extend(unit.to_le_bytes()));
            std::fs::write(dir.path().join(format!("{name}-{VENDOR}")), bytes).expect("a variable");
        }
        let variables = LoaderVariables::new(dir.path());
        (dir, variables)
    }

    #[test]
    fn the_path_with_the_counter_is_preferred() {
        let (_dir, variables) = variables(&[
            ("LoaderBootCountPath", "\\EFI\\Linux\\dyad-0.2.0+2-1.efi"),
            ("LoaderEntrySelected", "dyad-0.2.0.efi"),
        ]);
        let booted = variables.booted().expect("readable").expect("booted");
        assert_eq!(booted.to_string(), "dyad-0.2.0+2-1.efi");
    }

    #[test]
    fn a_slot_without_a_counter_is_found_by_the_selected_entry() {
        let (_dir, variables) = variables(&[("LoaderEntrySelected", "dyad-0.2.0.efi")]);
        assert_eq!(variables.booted().expect("readable").expect("booted").to_string(), "dyad-0.2.0.efi");
    }

    #[test]
    fn without_variables_of_the_boot_loader_slot_and_partition_are_none() {
        let (_dir, variables) = variables(&[]);
        assert_eq!(variables.booted().expect("readable"), None);
        assert_eq!(variables.loader_partition().expect("readable"), None);
    }
}
