//! Options of `cargo xtask image`.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Usage text, shown with an error.
pub const USAGE: &str = "\
cargo xtask image [--fast] [--version V] [--cmdline WORDS] [--output FILE]
                  [--broken V]            add a second, broken slot of version V (tests of the fallback)
                  [--programs DIR]        take our programs from there instead of building them
                  [--program NAME=FILE]   take one program from there (tests)";

/// Time of all files in the image, in seconds since 1970: 2026-01-01. It is constant, so that equal inputs give equal
/// bytes.
pub const FILE_TIME: u64 = 1_767_225_600;
/// Compression level of zstd for images that are installed.
pub const ZSTD_LEVEL_BEST: u32 = 19;
/// Compression level of zstd for images that only tests boot (`--fast`).
const ZSTD_LEVEL_FAST: u32 = 3;

/// Options of one image build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compress with [`ZSTD_LEVEL_FAST`].
    pub fast: bool,
    /// Words appended to the kernel command line of `image/boot/cmdline`.
    pub cmdline: String,
    /// Version of the system; `None` = the version of the workspace.
    pub given_version: Option<String>,
    /// Version of a second slot whose boot always fails. The boot loader tries it first only if it is the higher version.
    pub broken: Option<String>,
    /// Folder with the built programs of this workspace; `None` = they are built first.
    pub programs: Option<PathBuf>,
    /// Files to take in place of a program, by the program's name.
    pub replaced: BTreeMap<String, PathBuf>,
    /// Path of the disk image; `None` = `target/image/dyad.img`.
    pub output: Option<PathBuf>,
}

impl Options {
    /// Parses the arguments behind `cargo xtask image`.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if word == "--fast" {
                options.fast = true;
                continue;
            }
            let value = words.next().with_context(|| format!("`{word}` is not complete. Usage:\n{USAGE}"))?.to_string();
            match word {
                "--version" => options.given_version = Some(value),
                "--cmdline" => options.cmdline = value,
                "--output" => options.output = Some(value.into()),
                "--broken" => options.broken = Some(value),
                "--programs" => options.programs = Some(value.into()),
                "--program" => {
                    let (name, path) = value.split_once('=').context("--program takes NAME=FILE.")?;
                    options.replaced.insert(name.into(), path.into());
                }
                other => bail!("There is no option `{other}`. Usage:\n{USAGE}"),
            }
        }
        Ok(options)
    }

    /// The given version, else that of the workspace.
    pub fn version(&self) -> String {
        self.given_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
    }

    /// Compression level of zstd, 1 to 22.
    pub fn zstd_level(&self) -> u32 {
        if self.fast { ZSTD_LEVEL_FAST } else { ZSTD_LEVEL_BEST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_parsed_and_unknown_ones_refused() {
        let options = Options::parse(&["--fast", "--cmdline", "a b", "--broken", "9", "--program", "dyad-core=/x"]);
        let options = options.expect("understood");
        assert!(options.fast);
        assert_eq!((options.cmdline.as_str(), options.broken.as_deref()), ("a b", Some("9")));
        assert_eq!(options.replaced["dyad-core"], PathBuf::from("/x"));
        assert_eq!(options.version(), env!("CARGO_PKG_VERSION"));
        assert!(Options::parse(&["--slow", "x"]).is_err());
        assert!(Options::parse(&["--version"]).is_err());
    }
}
