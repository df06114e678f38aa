//! The watchdog: init opens it and keeps it open, `dyad-core` feeds it.
//!
//! init keeps the descriptor open as long as the machine runs. The end of the core then does not close the device, which
//! could disarm it. The descriptor is [`DESCRIPTOR`] in init and in the core.

use crate::modules::Modules;
use crate::{cgroup, log, sys};
use anyhow::Context;
use std::fs::{self, File, OpenOptions};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Number of the watchdog's file descriptor, in init and in `dyad-core`.
pub const DESCRIPTOR: RawFd = 3;

const CLASS: &str = "/sys/class/watchdog";
const SOFTWARE: &str = "Software Watchdog";

/// An armed watchdog, open as [`DESCRIPTOR`].
#[derive(Debug, Clone)]
pub struct Watchdog {
    /// Name of the device, as its driver reports it.
    pub identity: String,
}

/// Opens `/dev/null` as [`DESCRIPTOR`], so that no other file gets this number before the watchdog does.
pub fn reserve_descriptor() -> anyhow::Result<()> {
    let null = File::open("/dev/null").context("/dev/null does not open")?;
    sys::keep_as(null, DESCRIPTOR).context("a descriptor cannot be reserved for the watchdog")
}

/// Phase: opens, and thereby arms, the first hardware watchdog and sets its period; without one, the kernel's software
/// watchdog. With a period of 0 no watchdog is opened. Returns the armed watchdog, if there is one.
pub fn open(period: Duration, modules: &mut Modules) -> anyhow::Result<Option<Watchdog>> {
    if period.is_zero() {
        log::warn("no watchdog is used: the kernel command line forbids it");
        return Ok(None);
    }
    let hardware = devices().into_iter().find(|(_, identity)| identity != SOFTWARE);
    let found = hardware.or_else(|| {
        log::warn("there is no hardware watchdog: the software watchdog does not work when the kernel hangs");
        modules.load("softdog");
        devices().into_iter().next()
    });
    let Some((device, identity)) = found else {
        log::warn("there is no watchdog at all: this node cannot fence itself when it hangs");
        return Ok(None);
    };
    let file = OpenOptions::new()
        .write(true)
        .open(&device)
        .with_context(|| format!("the watchdog {} does not open: no other program may use it", device.display()))?;
    sys::keep_as(file, DESCRIPTOR).context("the watchdog cannot be kept open")?;
    let watchdog = Watchdog { identity };
    let granted = watchdog.set_period(period);
    log::info(&format!("watchdog {} ({}), period {granted:?}", device.display(), watchdog.identity));
    Ok(Some(watchdog))
}

impl Watchdog {
    /// Sets the period, in whole seconds. Returns the period that the device granted; after an error the old one holds.
    pub fn set_period(&self, period: Duration) -> std::io::Result<Duration> {
        let seconds = i32::try_from(period.as_secs()).unwrap_or(i32::MAX);
        let granted = sys::watchdog_period(DESCRIPTOR, seconds)?;
        Ok(Duration::from_secs(u64::try_from(granted).unwrap_or(0)))
    }

    /// Sets the period and feeds the watchdog once, unless a VM may be running: such a node must be reset to fence it.
    pub fn set_final_period(&self, period: Duration) {
        if !cgroup::vms_running() {
            // After an error the watchdog resets the node during the shutdown, which does no harm then.
            let _ = self.set_period(period);
            let _ = sys::watchdog_feed(DESCRIPTOR);
        }
    }
}

/// Device and identity of each watchdog, sorted by device name.
fn devices() -> Vec<(PathBuf, String)> {
    let mut names: Vec<_> = fs::read_dir(CLASS).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    names.sort();
    names
        .into_iter()
        .filter_map(|name| {
            let identity = fs::read_to_string(Path::new(CLASS).join(&name).join("identity")).ok()?;
            Some((Path::new("/dev").join(name), identity.trim().to_owned()))
        })
        .collect()
}
