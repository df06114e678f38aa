//! Messages of init: to the kernel log always, to the console until the status screen owns it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once `dyad-console` draws on the lines that the kernel console shares.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Which kernel messages reach the console, as in `proc_sys_kernel(5)`.
const PRINTK: &str = "/proc/sys/kernel/printk";

/// From now on only the kernel log is written, by us and by the kernel: the console belongs to the status screen. A
/// kernel that panics speaks up all the same.
pub fn leave_console() {
    QUIET.store(true, Ordering::Relaxed);
    let _ = fs::write(PRINTK, "1");
}

/// The console is ours again, and the kernel's warnings belong there too.
pub fn take_console() {
    QUIET.store(false, Ordering::Relaxed);
    let _ = fs::write(PRINTK, "5");
}

/// A message about normal progress.
pub fn info(text: &str) {
    write(6, text);
}

/// A message that may need a person.
pub fn warn(text: &str) {
    write(4, text);
}

fn write(level: u8, text: &str) {
    // Each message opens its target: a console may appear, vanish and hang up under us. Nothing helps if it fails.
    if let Ok(mut kernel) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = kernel.write_all(format!("<{level}>dyad-init: {text}\n").as_bytes());
    }
    if !QUIET.load(Ordering::Relaxed)
        && let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console")
    {
        let _ = console.write_all(format!("dyad: {text}\r\n").as_bytes());
    }
}
