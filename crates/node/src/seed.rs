//! The seed file, which answers the questions of the wizard at boot. It is in the state directory, or on a FAT volume with
//! the label `DYAD-SEED`.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use dyad_api::{ApiError, Service};
use dyad_control::Phase;
use dyad_wizard::{Problem, SEED_FILE, SEED_LABEL};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::NodeHandle;

/// Maximum length of a seed file, in bytes; the rest of a longer file is ignored.
const MAX_SEED_BYTES: u64 = 64 << 10;

/// Waits until the core reports whether the node is set up. If the node is blank and has a seed file, begins the setup that
/// the file describes. If the node is set up, removes the seed file from the state directory, because it holds the password.
/// `search_volumes`: whether FAT volumes are searched too.
///
/// # Errors
/// The seed file cannot be read, an answer in it is refused, or the setup does not begin. The error is also shown as that of
/// a failed setup; the wizard stays available.
pub async fn carry_out(node: Arc<NodeHandle>, search_volumes: bool) -> Result<(), ApiError> {
    let result = read_and_begin(&node, search_volumes).await;
    if let Err(problem) = &result {
        node.seed_refused(problem.clone());
    }
    result
}

async fn read_and_begin(node: &Arc<NodeHandle>, search_volumes: bool) -> Result<(), ApiError> {
    let mut snapshots = node.follow();
    loop {
        let phase = snapshots.borrow_and_update().status.as_ref().map(|s| s.phase.clone());
        match phase {
            Some(Phase::Blank) => break,
            Some(Phase::Running) => {
                // The file is needed no more, and it holds the password.
                let _ = fs::remove_file(node.options.state.join(SEED_FILE));
                return Ok(());
            }
            Some(Phase::SettingUp { .. } | Phase::Broken { .. }) | None => {}
        }
        if snapshots.changed().await.is_err() {
            return Ok(());
        }
    }
    let (state, run) = (node.options.state.clone(), node.options.run.clone());
    let found = tokio::task::spawn_blocking(move || find(&state, search_volumes.then_some(&run))).await;
    let found = found.unwrap_or(Ok(None));
    let unreadable = |error| Problem::Unreadable(format!("the seed file does not open ({error})"));
    let Some(text) = found.map_err(unreadable)? else { return Ok(()) };
    let surroundings = node.surroundings().await?;
    let answers = dyad_wizard::from_toml(&text, &surroundings)?;
    node.begin(dyad_wizard::plan(&answers, &surroundings)?).await
}

/// The text of the seed file in `state`, otherwise of that on a seed volume, which is mounted below `run`; `None` if there is
/// no seed file. Without `run` no volume is searched.
fn find(state: &Path, run: Option<&PathBuf>) -> io::Result<Option<String>> {
    match read(&state.join(SEED_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found.map(Some),
    }
    let (Some(run), Ok(disks)) = (run, fs::read_dir("/sys/class/block")) else { return Ok(None) };
    let mut devices: Vec<PathBuf> = disks.flatten().map(|d| Path::new("/dev").join(d.file_name())).collect();
    devices.sort();
    match devices.into_iter().find(|device| is_seed_volume(device)) {
        Some(device) => SeedVolume { device: &device, mount_point: &run.join("seed") }.read().map(Some),
        None => Ok(None),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_SEED_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// A FAT volume with the label of a seed volume.
struct SeedVolume<'a> {
    device: &'a Path,
    mount_point: &'a Path,
}

impl SeedVolume<'_> {
    /// Mounts the volume read-only, reads the seed file, and unmounts the volume.
    fn read(self) -> io::Result<String> {
        let Self { device, mount_point } = self;
        fs::create_dir_all(mount_point)?;
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        mount(device, mount_point, "vfat", flags, None)?;
        let text = read(&mount_point.join(SEED_FILE));
        unmount(mount_point, UnmountFlags::DETACH)?;
        text
    }
}

fn is_seed_volume(device: &Path) -> bool {
    let mut sector = [0; 512];
    let opened = fs::File::open(device).and_then(|mut file| file.read_exact(&mut sector));
    opened.is_ok() && fat_label(&sector).is_some_and(|label| label == SEED_LABEL)
}

/// The label in the boot sector of a FAT volume: at byte 71 of FAT32, at byte 43 of FAT12 and FAT16. `None` if the sector is
/// not that of a FAT volume.
fn fat_label(sector: &[u8; 512]) -> Option<String> {
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let label = if &sector[82..87] == b"FAT32" {
        &sector[71..82]
    } else if &sector[54..57] == b"FAT" {
        &sector[43..54]
    } else {
        return None;
    };
    Some(String::from_utf8_lossy(label).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(kind: (usize, &[u8]), label: (usize, &[u8])) -> [u8; 512] {
        let mut sector = [0; 512];
        for (at, bytes) in [kind, label, (510, &[0x55, 0xaa])] {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
        }
        sector
    }

    #[test]
    fn the_label_of_fat16_and_fat32_is_found() {
        let small = sector((54, b"FAT16   "), (43, b"DYAD-SEED  "));
        let large = sector((82, b"FAT32   "), (71, b"DYAD-SEED  "));
        assert_eq!(fat_label(&small).as_deref(), Some(SEED_LABEL));
        assert_eq!(fat_label(&large).as_deref(), Some(SEED_LABEL));
        assert_eq!(fat_label(&[0; 512]), None);
    }

    #[test]
    fn the_seed_file_in_the_state_directory_is_found() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(find(state.path(), None).unwrap(), None);
        fs::write(state.path().join(SEED_FILE), "role = \"first\"").unwrap();
        assert_eq!(find(state.path(), None).unwrap().as_deref(), Some("role = \"first\""));
        fs::write(state.path().join(SEED_FILE), [0xff]).unwrap();
        assert!(find(state.path(), None).is_err(), "an unreadable file is an error, not an absent one");
    }
}
