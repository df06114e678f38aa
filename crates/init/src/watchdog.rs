//! The watchdog: init opens and keeps it, `dyad-core` feeds it.
//!
//! init holds the descriptor for as long as the machine runs, so that the end of the core never closes, and thereby
//! never disarms, the device. It is always descriptor [`DESCRIPTOR`], here and in the core.

use crate::modules::Modules;
use crate::{cgroup, log, sys};
use anyhow::Context;
use std::fs::{self, File, OpenOptions};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The number under which the watchdog is open.
pub const DESCRIPTOR: RawFd = 3;

const CLASS: &str = "/sys/class/watchdog";
const SOFTWARE: &str = "Software Watchdog";

/// An armed watchdog, open as [`DESCRIPTOR`].
#[derive(Debug, Clone)]
pub struct Watchdog {
    pub identity: String,
}

/// Puts a harmless file under [`DESCRIPTOR`], so that no other file gets that number.
pub fn reserve_descriptor() -> anyhow::Result<()> {
    let null = File::open("/dev/null").context("/dev/null does not open")?;
    sys::keep_as(null, DESCRIPTOR).context("a descriptor cannot be set aside for the watchdog")
}

/// Phase: arms the first hardware watchdog with `period`, or the kernel's software watchdog if there is none. A
/// period of 0 leaves every watchdog closed. Returns the armed watchdog.
pub fn open(period: Duration, modules: &mut Modules) -> anyhow::Result<Option<Watchdog>> {
    if period.is_zero() {
        log::warn("no watchdog is used, as the command line demands");
        return Ok(None);
    }
    let hardware = devices().into_iter().find(|(_, identity)| identity != SOFTWARE);
    let found = hardware.or_else(|| {
        log::warn("there is no hardware watchdog: the software one cannot help when the kernel hangs");
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
    /// Asks for a period of whole seconds. Returns what the device granted; an error leaves the period as it was.
    pub fn set_period(&self, period: Duration) -> std::io::Result<Duration> {
        let seconds = i32::try_from(period.as_secs()).unwrap_or(i32::MAX);
        let granted = sys::watchdog_period(DESCRIPTOR, seconds)?;
        Ok(Duration::from_secs(u64::try_from(granted).unwrap_or(0)))
    }

    /// Changes the period and feeds once, if no VM can be running: then there is nothing left to fence.
    pub fn rest_without_vms(&self, period: Duration) {
        if !cgroup::vms_running() {
            // A refusal leads to a reset, which is where this is going anyhow.
            let _ = self.set_period(period);
            let _ = sys::watchdog_feed(DESCRIPTOR);
        }
    }
}

/// All watchdogs with their identities, in the kernel's order.
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
