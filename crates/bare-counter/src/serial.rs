//! The first serial line (16550).

use core::arch::asm;
use core::fmt::{self, Write as _};

use crate::interrupts::{read_port, write_port};

const DATA_PORT: u16 = 0x3f8;
const FIFO_CONTROL_PORT: u16 = DATA_PORT + 2;
const LINE_STATUS_PORT: u16 = DATA_PORT + 5;
/// Bit of the line status: the transmitter takes [`FIFO_BYTES`].
const TRANSMITTER_EMPTY: u8 = 0x20;
const FIFO_BYTES: usize = 16;
/// The longest line; a longer one is cut.
const LINE_BYTES: usize = 160;

/// The first serial line, to which the program only writes.
#[derive(Debug)]
pub struct SerialLine(());

impl SerialLine {
    /// The line with its transmit buffer enabled. The BIOS has set the speed, which a virtual line ignores.
    pub fn open() -> Self {
        write_port(FIFO_CONTROL_PORT, 0x07);
        Self(())
    }

    /// Prints one line.
    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        let mut line = Line { bytes: [0; LINE_BYTES], length: 0 };
        // An error says that the line is full.
        let _ = line.write_fmt(text);
        let end = line.length;
        line.bytes[end..end + 2].copy_from_slice(b"\r\n");
        line.bytes[..end + 2].chunks(FIFO_BYTES).for_each(write_chunk);
    }
}

/// Writes at most [`FIFO_BYTES`] with one instruction: a VM takes as long for it as for one byte.
fn write_chunk(bytes: &[u8]) {
    while read_port(LINE_STATUS_PORT) & TRANSMITTER_EMPTY == 0 {
        core::hint::spin_loop();
    }
    // SAFETY: the instruction reads the bytes of the slice. The direction flag is clear.
    unsafe {
        asm!("rep outsb", in("dx") DATA_PORT, inout("rcx") bytes.len() => _, inout("rsi") bytes.as_ptr() => _, options(nostack, preserves_flags));
    }
}

struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Two bytes are left for the line's end.
        let room = LINE_BYTES - 2 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
