//! Goal: no loss of power and no failed operation leaves a mixture of old and new content, and confirmed content stays.
//! Method: the operations run on a model of a file system that keeps durable state apart from state in memory. Power is
//! lost after each operation in turn. The test then looks at each content and each set of names that the kernel may
//! have written to the disk by then.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

const TARGET: &str = "/state/identity.json";
const OLD: &[u8] = b"the old content";
const NEW: &[u8] = b"a new content, longer than the old one";

/// A model of a file system. A name leads to the number of a file.
#[derive(Clone, Default)]
struct Model {
    /// The content of each file, by number.
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    /// The names after each change since the last sync of the folder; the first entry is durable. A journaling file
    /// system writes changes of names to the disk in the order in which they were made.
    name_history: Vec<BTreeMap<PathBuf, usize>>,
    /// Number of operations that succeed before power is lost or, with `fails`, one operation fails.
    steps_left: usize,
    fails: bool,
    power_lost: bool,
    /// Planted bug that a test must find: a sync of a file does nothing.
    ignores_sync_file: bool,
    /// Planted bug that a test must find: a sync of a folder does nothing.
    ignores_sync_folder: bool,
}

/// The bytes of one file, as a reader sees them and as they are durable.
#[derive(Clone, Default)]
struct Content {
    written: Vec<u8>,
    durable: Vec<u8>,
}

impl Model {
    fn new() -> Self {
        let names = BTreeMap::from([(PathBuf::from(TARGET), 0)]);
        let old = Content { written: OLD.to_vec(), durable: OLD.to_vec() };
        Self {
            contents: vec![old],
            name_history: vec![names.clone()],
            names,
            steps_left: usize::MAX,
            ..Self::default()
        }
    }

    /// Counts one operation; an error if it fails or power is lost.
    fn step(&mut self) -> io::Result<()> {
        if self.steps_left == 0 && self.fails {
            self.steps_left = usize::MAX;
            return Err(io::Error::other("a planted failure"));
        }
        self.power_lost |= self.steps_left == 0;
        if self.power_lost {
            return Err(io::Error::other("power is lost"));
        }
        self.steps_left -= 1;
        Ok(())
    }

    fn set_names(&mut self, change: impl FnOnce(&mut BTreeMap<PathBuf, usize>)) {
        change(&mut self.names);
        self.name_history.push(self.names.clone());
    }

    /// Each content that the target may have after a loss of power at this moment.
    fn possible_contents_after_power_loss(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for names in &self.name_history {
            let Content { written, durable } = &self.contents[names[Path::new(TARGET)]];
            all.push(durable.clone());
            if written != durable {
                all.extend([written[..written.len() / 2].to_vec(), written.clone()]);
            }
        }
        all
    }

    /// The content of the target as a reader sees it.
    fn target_content(&self) -> &[u8] {
        &self.contents[self.names[Path::new(TARGET)]].written
    }
}

impl FileSystem for Model {
    type File = usize;

    fn create_locked(&mut self, path: &Path, _mode: u32) -> io::Result<usize> {
        self.step()?;
        self.contents.push(Content::default());
        let file = self.contents.len() - 1;
        self.set_names(|names| {
            names.insert(path.to_owned(), file);
        });
        Ok(file)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let done = self.step();
        // A write that fails may have written a part.
        let length = if done.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.contents[*file].written.extend(&bytes[..length]);
        done
    }

    fn sync_file(&mut self, file: &usize) -> io::Result<()> {
        self.step()?;
        let content = &mut self.contents[*file];
        if !self.ignores_sync_file {
            content.durable = content.written.clone();
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.set_names(|names| {
            let file = names.remove(from).expect("a file");
            names.insert(to.to_owned(), file);
        });
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.set_names(|names| {
            names.remove(path);
        });
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.step()?;
        assert_eq!(folder, Path::new("/state"));
        if !self.ignores_sync_folder {
            self.name_history.drain(..self.name_history.len() - 1);
        }
        Ok(())
    }
}

/// Replaces the target again and again, with a loss of power after each number of operations in turn. The error
/// describes the first content that must not be there.
fn check_power_loss_after_each_step(model: &Model) -> Result<(), String> {
    for steps in 0.. {
        let mut model = Model { steps_left: steps, ..model.clone() };
        let confirmed = replace_on(&mut model, Path::new(TARGET), NEW, PRIVATE).is_ok();
        for content in model.possible_contents_after_power_loss() {
            if content != NEW && (confirmed || content != OLD) {
                let content = String::from_utf8_lossy(&content);
                return Err(format!("after {steps} steps, confirmed: {confirmed}: {content:?}"));
            }
        }
        if confirmed {
            assert_eq!(steps, 5, "create, write, sync, rename, sync");
            return Ok(());
        }
    }
    unreachable!("a replacement has an end")
}

#[test]
fn power_loss_after_any_step_leaves_the_old_or_the_new_content() {
    check_power_loss_after_each_step(&Model::new()).unwrap();
}

#[test]
fn a_planted_missing_sync_is_found() {
    let found = check_power_loss_after_each_step(&Model { ignores_sync_file: true, ..Model::new() }).unwrap_err();
    assert!(found.starts_with("after 4 steps"), "{found}");
    let found = check_power_loss_after_each_step(&Model { ignores_sync_folder: true, ..Model::new() }).unwrap_err();
    assert!(found.starts_with("after 5 steps, confirmed: true"), "{found}");
}

#[test]
fn a_failed_step_leaves_the_old_content_and_no_temporary_file() {
    for steps in 0..4 {
        let mut model = Model { steps_left: steps, fails: true, ..Model::new() };
        replace_on(&mut model, Path::new(TARGET), NEW, PRIVATE).unwrap_err();
        assert_eq!(model.target_content(), OLD, "step {steps} failed");
        assert_eq!(model.names.len(), 1, "step {steps} failed");
    }
    let mut model = Model { steps_left: 4, fails: true, ..Model::new() };
    replace_on(&mut model, Path::new(TARGET), NEW, PRIVATE).unwrap_err();
    assert_eq!(model.target_content(), NEW, "only the sync of the folder failed");
}

#[test]
fn content_and_mode_are_those_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    for (content, mode) in [("a long first content", PUBLIC), ("second", PRIVATE), ("third", 0o755)] {
        // A temporary file that a killed writer left, readable by all.
        fs::write(dir.path().join("identity.key.new"), [7; 100]).unwrap();
        replace_with_mode(&path, content.as_bytes(), mode).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_unwritable_target_is_an_error_and_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("folder");
    fs::create_dir(&path).unwrap();
    replace(&path, b"x").unwrap_err();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file");
    assert_eq!(replace(&dir.path().join("absent/file"), b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(replace(Path::new("/"), b"x").unwrap_err().kind(), io::ErrorKind::InvalidFilename);
}

#[test]
fn the_contents_of_concurrent_writers_are_never_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    replace(&path, &[0; 1000]).unwrap();
    std::thread::scope(|scope| {
        for writer in 1..5u8 {
            let path = &path;
            scope
                .spawn(move || (0..20).for_each(|_| replace(path, &vec![writer; 1000 * usize::from(writer)]).unwrap()));
        }
        for _ in 0..200 {
            let content = fs::read(&path).unwrap();
            assert!(content.iter().all(|byte| *byte == content[0]), "one writer's content");
            assert_eq!(content.len(), 1000 * usize::from(content[0].max(1)), "the whole content");
        }
    });
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    replace(&one, b"x").unwrap();
    rename(&one, &two).unwrap();
    assert!(!one.exists() && two.exists());
    assert_eq!(rename(&one, &two).unwrap_err().kind(), io::ErrorKind::NotFound);
    remove(&two).unwrap();
    remove(&two).unwrap();
    assert!(!two.exists());
}
