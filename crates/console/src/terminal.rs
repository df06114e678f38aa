//! The terminal on standard input and output: its raw mode, its size, and the keys pressed.

use ratatui::layout::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use std::time::Duration;
use tokio::sync::mpsc;

/// One input from the terminal: a key, or the reply to a request for its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    /// Backspace, which deletes the last character.
    Backspace,
    /// Ctrl-C or Ctrl-U, which clears the line.
    Cancel,
    /// The terminal's reply to the request for its size: columns and rows.
    Size(u16, u16),
}

/// Columns and rows of the smallest supported terminal. Also the size of a terminal that reports none.
pub const MIN_SIZE: (u16, u16) = (80, 24);

/// The reason why the terminal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The device of standard input refuses raw mode.
    #[error("the terminal cannot be set to raw mode")]
    RawMode(#[source] io::Error),
    /// The kernel starts no thread for the keys.
    #[error("the thread that reads the keys cannot be started")]
    Thread(#[source] io::Error),
}

/// A terminal in raw mode. Dropping it restores the previous mode.
pub struct Terminal {
    before: Option<Termios>,
    keys: mpsc::UnboundedReceiver<Key>,
}

impl Terminal {
    /// Sets standard input to raw mode and starts a thread that reads its keys.
    ///
    /// # Errors
    /// [`TerminalError::RawMode`] or [`TerminalError::Thread`].
    pub fn open() -> Result<Self, TerminalError> {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|error| TerminalError::RawMode(error.into()))?;
        }
        let (sender, keys) = mpsc::unbounded_channel();
        let reader = std::thread::Builder::new().name("keys".into());
        reader.spawn(move || read_keys(io::stdin(), &sender)).map_err(TerminalError::Thread)?;
        Ok(Self { before, keys })
    }

    /// Waits for the next key. Returns `None` if the terminal is closed.
    pub async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Requests the size from the terminal by an escape sequence, because a serial line has no other way. Without a reply
    /// within 300 ms the size is [`MIN_SIZE`]. Keys that are pressed meanwhile are lost.
    pub async fn size(&mut self) -> Size {
        write("\x1b7\x1b[999;999H\x1b[6n\x1b8");
        let reply = async {
            while let Some(key) = self.key().await {
                if let Key::Size(columns, rows) = key {
                    return Some((columns, rows));
                }
            }
            None
        };
        let (columns, rows) =
            tokio::time::timeout(Duration::from_millis(300), reply).await.ok().flatten().unwrap_or(MIN_SIZE);
        Size::new(columns.clamp(MIN_SIZE.0, 200), rows.clamp(MIN_SIZE.1, 60))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Writes to the terminal. Errors are ignored, because a closed terminal also ends [`Terminal::key`].
pub fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn read_keys(mut from: impl Read, to: &mpsc::UnboundedSender<Key>) {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 256];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..n] {
            if let Some(key) = decoder.feed(*byte)
                && to.send(key).is_err()
            {
                return;
            }
        }
    }
}

/// Decodes bytes into keys. Escape sequences are dropped, except the reply with the terminal's size.
#[derive(Debug, Default)]
struct Decoder {
    /// The escape sequence that has begun, without its first byte.
    escape: Option<String>,
    /// Whether the last byte was a carriage return.
    after_return: bool,
}

impl Decoder {
    fn feed(&mut self, byte: u8) -> Option<Key> {
        if let Some(sequence) = &mut self.escape {
            sequence.push(char::from(byte));
            let introduced = sequence.starts_with('[') || sequence.starts_with('O');
            let ended = if introduced { sequence.len() > 1 && (0x40..0x7f).contains(&byte) } else { true };
            if !ended && sequence.len() < 32 {
                return None;
            }
            let sequence = self.escape.take().unwrap_or_default();
            return size_reply(&sequence);
        }
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            0x1b => {
                self.escape = Some(String::new());
                None
            }
            b'\r' => Some(Key::Enter),
            // Some terminals send `\r\n` for Enter.
            b'\n' if after_return => None,
            b'\n' => Some(Key::Enter),
            0x7f | 0x08 => Some(Key::Backspace),
            0x03 | 0x15 => Some(Key::Cancel),
            b' '..=b'~' => Some(Key::Char(char::from(byte))),
            _ => None,
        }
    }
}

/// Parses a terminal's report of the cursor position, `[ROWS;COLUMNSR`.
fn size_reply(sequence: &str) -> Option<Key> {
    let (rows, columns) = sequence.strip_prefix('[')?.strip_suffix('R')?.split_once(';')?;
    Some(Key::Size(columns.parse().ok()?, rows.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_size_replies_are_decoded_and_other_sequences_dropped() {
        let mut decoder = Decoder::default();
        let keys: Vec<Key> =
            b"a\x1b[A\x7f\r\n\n\x1b[24;80R\x03\xc3".iter().filter_map(|byte| decoder.feed(*byte)).collect();
        let expected = [Key::Char('a'), Key::Backspace, Key::Enter, Key::Enter, Key::Size(80, 24), Key::Cancel];
        assert_eq!(keys, expected);
    }
}
