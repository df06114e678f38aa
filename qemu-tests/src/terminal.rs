//! A terminal at the far end of a serial line: it shows output and answers questions for the cursor position.

use std::fmt;

/// Rows and columns of the terminal, the size a serial console may count on.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// "Where is the cursor?": programs ask it to learn the size of the terminal.
const CURSOR_QUESTION: &[u8] = b"\x1b[6n";

/// An 80×24 terminal.
pub struct Terminal {
    parser: vt100::Parser,
    matched: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { parser: vt100::Parser::new(ROWS, COLUMNS, 0), matched: 0 }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    /// Shows `bytes`; returns what the terminal answers to questions among them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        for byte in bytes {
            self.parser.process(std::slice::from_ref(byte));
            self.matched = if CURSOR_QUESTION[self.matched] == *byte {
                self.matched + 1
            } else {
                usize::from(*byte == CURSOR_QUESTION[0])
            };
            if self.matched == CURSOR_QUESTION.len() {
                self.matched = 0;
                let (row, column) = self.parser.screen().cursor_position();
                answer.extend(format!("\x1b[{};{}R", row + 1, column + 1).into_bytes());
            }
        }
        answer
    }

    /// The text shown now, row by row.
    pub fn screen(&self) -> String {
        self.parser.screen().contents()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_its_size_like_a_real_one() {
        let mut terminal = Terminal::default();
        assert_eq!(terminal.feed(b"\x1b[999;999H\x1b[6"), b"");
        assert_eq!(terminal.feed(b"n"), b"\x1b[24;80R");
    }

    #[test]
    fn it_shows_what_remains_on_the_screen() {
        let mut terminal = Terminal::default();
        terminal.feed(b"wrong\x1b[2J\x1b[3;5Hright");
        assert_eq!(terminal.screen().trim(), "right");
    }
}
