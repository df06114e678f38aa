//! The power button. One press shuts the node down as `poweroff` does.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of `struct input_event` on 64-bit machines (linux/input.h).
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Opens all input devices that the kernel names "Power Button". A device that does not open is left out.
pub fn find() -> Vec<File> {
    let mut buttons = Vec::new();
    for entry in fs::read_dir("/sys/class/input").into_iter().flatten().flatten() {
        let label = fs::read_to_string(entry.path().join("device/name")).unwrap_or_default();
        if label.trim() == "Power Button" {
            let device = Path::new("/dev/input").join(entry.file_name());
            buttons.extend(OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(device));
        }
    }
    buttons
}

/// Reads up to 32 waiting events of a button without blocking. Returns whether one of them is a press of the power key.
pub fn pressed(mut button: &File) -> bool {
    let mut buffer = [0; EVENT_BYTES * 32];
    let length = button.read(&mut buffer).unwrap_or(0);
    buffer[..length].chunks_exact(EVENT_BYTES).any(is_press)
}

fn is_press(event: &[u8]) -> bool {
    let field = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    field(16) == EV_KEY && field(18) == KEY_POWER && event[20] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: u8| {
            let mut bytes = [0; EVENT_BYTES];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20] = value;
            bytes
        };
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_press(&event(EV_KEY, 30, 1)));
        assert!(!is_press(&event(0, 0, 0)));
    }
}
