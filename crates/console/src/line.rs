//! Reads one typed line. Because the terminal is in raw mode, this module echoes the characters.

use crate::terminal::{Key, Terminal, write};

/// Maximum length of a line, in characters; further characters are ignored.
const MAX_LINE_LENGTH: usize = 512;

/// The prompt of a line, and the treatment of its answer.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Text before the line.
    pub text: &'a str,
    /// The answer that an empty line gives; shown in brackets. Not used for a secret.
    pub default: &'a str,
    /// Whether each typed character is echoed as a star.
    pub secret: bool,
}

impl<'a> Prompt<'a> {
    /// A prompt without a default answer, for a line that is no secret.
    pub fn new(text: &'a str) -> Self {
        Self { text, default: "", secret: false }
    }
}

/// Reads one line. Returns `None` if the terminal is closed.
pub async fn read(terminal: &mut Terminal, Prompt { text: prompt, default, secret }: Prompt<'_>) -> Option<String> {
    let hint = if default.is_empty() || secret { String::new() } else { format!("[{default}] ") };
    write(&format!("{prompt}{hint}"));
    let mut typed = String::new();
    loop {
        match terminal.key().await? {
            Key::Enter => break,
            Key::Char(c) if typed.len() < MAX_LINE_LENGTH => {
                typed.push(c);
                write(if secret { "*" } else { typed.get(typed.len() - 1..).unwrap_or("") });
            }
            Key::Backspace => {
                if typed.pop().is_some() {
                    write("\x08 \x08");
                }
            }
            Key::Cancel => {
                typed.clear();
                write(&format!("\r\n{prompt}{hint}"));
            }
            Key::Char(_) | Key::Size(..) => {}
        }
    }
    write("\r\n");
    Some(if typed.is_empty() && !secret { default.to_owned() } else { typed })
}
