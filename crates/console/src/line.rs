//! Reads one typed line. The terminal is in raw mode, so this module echoes the characters itself.

use crate::terminal::{Key, Terminal, write};

/// Longest line, in characters.
const LONGEST: usize = 512;

/// How a line is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Stands before the line.
    pub text: &'a str,
    /// Enter alone takes this.
    pub offered: &'a str,
    /// The line is echoed as stars.
    pub secret: bool,
}

impl<'a> Prompt<'a> {
    /// Offers nothing and shows what is typed.
    pub fn new(text: &'a str) -> Self {
        Self { text, offered: "", secret: false }
    }
}

/// Reads one line. `None`: the terminal is closed.
pub async fn read(terminal: &mut Terminal, Prompt { text: prompt, offered, secret }: Prompt<'_>) -> Option<String> {
    let hint = if offered.is_empty() || secret { String::new() } else { format!("[{offered}] ") };
    write(&format!("{prompt}{hint}"));
    let mut typed = String::new();
    loop {
        match terminal.key().await? {
            Key::Enter => break,
            Key::Char(c) if typed.len() < LONGEST => {
                typed.push(c);
                write(if secret { "*" } else { typed.get(typed.len() - 1..).unwrap_or("") });
            }
            Key::Erase => {
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
    Some(if typed.is_empty() && !secret { offered.to_owned() } else { typed })
}
