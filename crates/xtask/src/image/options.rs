//! Options of `cargo xtask image`.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How to call it.
pub const USAGE: &str = "\
cargo xtask image [--fast] [--version V] [--cmdline WORDS] [--output FILE]
                  [--broken V]            add a second, broken slot of version V (tests of the fallback)
                  [--programs DIR]        take our programs from there instead of building them
                  [--program NAME=FILE]   take one program from there (tests)";

/// Times of all files in the image, in seconds since 1970. A constant: the version says how old a system is.
pub const FILE_TIME: u64 = 1_767_225_600;
/// Level of zstd for images that people install.
pub const BEST: u32 = 19;
/// Level of zstd for images that are made to be tried.
const QUICK: u32 = 3;

/// Options of one image.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compress quickly instead of well.
    pub fast: bool,
    /// Words to add to the kernel command line; later words win.
    pub cmdline: String,
    /// Version of the system; the workspace's if `None`.
    pub given_version: Option<String>,
    /// Version of a second slot that never starts; it should be higher than the other one's.
    pub broken: Option<String>,
    /// Folder of our programs, built elsewhere.
    pub programs: Option<PathBuf>,
    /// Programs to take from other places, by name.
    pub replaced: BTreeMap<String, PathBuf>,
    /// Where the disk goes; `target/image/dyad.img` if `None`.
    pub output: Option<PathBuf>,
}

impl Options {
    /// Reads the words of a command line.
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

    /// The version of the system.
    pub fn version(&self) -> String {
        self.given_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
    }

    /// Level of zstd.
    pub fn level(&self) -> u32 {
        if self.fast { QUICK } else { BEST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
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
