//! Messages of init. They always go to the kernel log, and also to the console until the status screen uses it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set while `dyad-console` draws on the terminals of the kernel console: init then writes only to the kernel log.
static CONSOLE_IN_USE: AtomicBool = AtomicBool::new(false);

/// File with the level of kernel messages up to which they reach the console; see `proc_sys_kernel(5)`.
const PRINTK: &str = "/proc/sys/kernel/printk";

/// Keeps messages of init and of the kernel off the console from now on, because the status screen draws there. The
/// message of a kernel panic still appears.
pub fn leave_console() {
    CONSOLE_IN_USE.store(true, Ordering::Relaxed);
    let _ = fs::write(PRINTK, "1");
}

/// Sends messages of init, and warnings and errors of the kernel, to the console again.
pub fn take_console() {
    CONSOLE_IN_USE.store(false, Ordering::Relaxed);
    let _ = fs::write(PRINTK, "5");
}

/// Writes a message about normal progress.
pub fn info(text: &str) {
    write(6, text);
}

/// Writes a message about an error that a person may have to repair.
pub fn warn(text: &str) {
    write(4, text);
}

fn write(level: u8, text: &str) {
    // The targets are opened for each message, because a console may appear or hang up at any time. A failure is ignored:
    // init has no other place to report it.
    if let Ok(mut kernel) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = kernel.write_all(format!("<{level}>dyad-init: {text}\n").as_bytes());
    }
    if !CONSOLE_IN_USE.load(Ordering::Relaxed)
        && let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console")
    {
        let _ = console.write_all(format!("dyad: {text}\r\n").as_bytes());
    }
}
