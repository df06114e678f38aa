//! An emulated terminal (VT100) at the rig's end of a serial line: it keeps the screen and answers cursor position
//! requests.

use std::fmt;

/// Rows of the terminal. 80×24 is the size of a VT100, which programs on a serial line may rely on.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// Control sequence "report cursor position" (DSR 6). A program learns the size of the terminal by moving the cursor
/// far away and asking for its position.
const CURSOR_POSITION_REQUEST: &[u8] = b"\x1b[6n";

/// State of an 80×24 terminal: its screen, and how much of a cursor position request has arrived.
pub struct Terminal {
    parser: vt100::Parser,
    request_bytes_matched: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { parser: vt100::Parser::new(ROWS, COLUMNS, 0), request_bytes_matched: 0 }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    /// Applies output of the node to the screen; returns the answers to the cursor position requests in it.
    pub fn process(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        for byte in bytes {
            self.parser.process(std::slice::from_ref(byte));
            self.request_bytes_matched = if CURSOR_POSITION_REQUEST[self.request_bytes_matched] == *byte {
                self.request_bytes_matched + 1
            } else {
                usize::from(*byte == CURSOR_POSITION_REQUEST[0])
            };
            if self.request_bytes_matched == CURSOR_POSITION_REQUEST.len() {
                self.request_bytes_matched = 0;
                let (row, column) = self.parser.screen().cursor_position();
                answer.extend(format!("\x1b[{};{}R", row + 1, column + 1).into_bytes());
            }
        }
        answer
    }

    /// Text of the screen, row by row.
    pub fn screen(&self) -> String {
        self.parser.screen().contents()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_beyond_the_corner_reports_the_size_of_the_screen() {
        let mut terminal = Terminal::default();
        assert_eq!(terminal.process(b"\x1b[999;999H\x1b[6"), b"");
        assert_eq!(terminal.process(b"n"), b"\x1b[24;80R");
    }

    #[test]
    fn erased_text_is_not_on_the_screen() {
        let mut terminal = Terminal::default();
        terminal.process(b"wrong\x1b[2J\x1b[3;5Hright");
        assert_eq!(terminal.screen().trim(), "right");
    }
}
