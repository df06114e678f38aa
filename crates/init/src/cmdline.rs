//! The `dyad.` options of the kernel command line.

use anyhow::Context;
use std::time::Duration;

/// Options of the boot, all with a default. Only tests of whole machines set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `dyad.watchdog=SECONDS`: period of the watchdog until `dyad-core` asks for another one; 0 means that no watchdog is
    /// opened.
    pub watchdog: Duration,
    /// `dyad.disk=SECONDS`: limit of the wait for the system disk.
    pub disk: Duration,
    /// `dyad.rescue=SECONDS`: time for which a failed boot shows its error before the node reboots.
    pub rescue: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { watchdog: Duration::from_secs(30), disk: Duration::from_secs(60), rescue: Duration::from_secs(120) }
    }
}

impl Options {
    /// Parses a command line. An unknown option, or a value that is no number, is ignored.
    pub fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in line.split_whitespace().filter_map(|word| word.strip_prefix("dyad.")?.split_once('=')) {
            let Ok(seconds) = value.parse().map(Duration::from_secs) else { continue };
            match name {
                "watchdog" => options.watchdog = seconds,
                "disk" => options.disk = seconds,
                "rescue" => options.rescue = seconds,
                _ => {}
            }
        }
        options
    }

    /// The options of this boot, for code that runs after a failed boot; the defaults if they cannot be read.
    pub fn of_this_boot() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }
}

/// Phase: reads and parses the kernel's command line.
pub fn read() -> anyhow::Result<Options> {
    let line = std::fs::read_to_string("/proc/cmdline").context("the kernel does not show its command line")?;
    Ok(Options::parse(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_dyad_options_count() {
        let options = Options::parse("quiet dyad.rescue=5 watchdog=9 dyad.disk=x dyad.unknown=1 dyad.watchdog=0");
        let expected = Options { rescue: Duration::from_secs(5), watchdog: Duration::ZERO, ..Options::default() };
        assert_eq!(options, expected);
    }
}
