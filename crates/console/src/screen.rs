//! A screen that sends to its terminal only the characters that changed since the last page.

use crate::terminal::write;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect, Size};
use ratatui::style::Modifier;
use std::fmt::Write;

/// The screen of a terminal. Dropping it clears the terminal and shows the cursor again.
pub struct Screen {
    /// The page that the terminal shows now.
    shown: Buffer,
}

impl Screen {
    /// Clears the terminal and hides its cursor.
    pub fn new(size: Size) -> Self {
        write("\x1b[0m\x1b[2J\x1b[H\x1b[?25l");
        Self { shown: Buffer::empty(Rect::from((Position::ORIGIN, size))) }
    }

    /// An empty page of the terminal's size, to be drawn on and given to [`Screen::show`].
    pub fn empty_page(&self) -> Buffer {
        Buffer::empty(self.shown.area)
    }

    /// Sends the characters in which `page` differs from the page shown now.
    pub fn show(&mut self, page: Buffer) {
        let text = difference(&self.shown, &page);
        if !text.is_empty() {
            write(&text);
        }
        self.shown = page;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write("\x1b[0m\x1b[2J\x1b[H\x1b[?25h");
    }
}

/// The escape sequences and characters that turn the page `before` into `after`.
fn difference(before: &Buffer, after: &Buffer) -> String {
    let mut text = String::new();
    let mut at = None;
    let mut bold = false;
    for (x, y, cell) in before.diff(after) {
        if at != Some((x, y)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\x1b[{};{}H", y + 1, x + 1);
        }
        let wanted = cell.modifier.contains(Modifier::BOLD);
        if wanted != bold {
            text.push_str(if wanted { "\x1b[1m" } else { "\x1b[0m" });
            bold = wanted;
        }
        text.push_str(cell.symbol());
        at = Some((x + 1, y));
    }
    if bold {
        text.push_str("\x1b[0m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Style;

    #[test]
    fn only_changed_characters_are_sent_and_the_terminal_shows_the_new_page() {
        let area = Rect::new(0, 0, 80, 24);
        let mut first = Buffer::empty(area);
        first.set_string(0, 0, "epoch 4", Style::new());
        let mut second = first.clone();
        second.set_string(6, 0, "5", Style::new());
        let mut parser = vt100::Parser::new(24, 80, 0);
        parser.process(difference(&Buffer::empty(area), &first).as_bytes());
        let update = difference(&first, &second);
        assert!(update.len() < 12, "{update:?}");
        parser.process(update.as_bytes());
        assert_eq!(parser.screen().contents(), "epoch 5");
        assert_eq!(difference(&second, &second), "");
    }
}
