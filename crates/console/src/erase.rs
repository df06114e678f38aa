//! Erasing of the node or of a disk from the node's own terminal. No password is needed, because this must also work when the
//! password is lost or the node cannot work; a person at the terminal could take the disks out anyway.

use crate::line::{self, Prompt};
use crate::terminal::{Terminal, write};
use dyad_api::ApiError;
use dyad_control::{Client, Request};
use dyad_wizard::ERASE_WORD;

/// Shows the sentence with the text to type, reads the confirmation and erases this node. Returns `None` if the terminal is
/// closed.
pub async fn node(terminal: &mut Terminal, core: &Client) -> Option<()> {
    // Sent without a confirmation, the request is refused with the text to type.
    let Err(instruction) = erase(core, None, "").await else { return Some(()) };
    write(&format!("Erase this node.\r\n\r\n{instruction}\r\nTo go back, press Enter.\r\n\r\n"));
    let typed = line::read(terminal, Prompt::new("> ")).await?;
    if typed.is_empty() {
        return Some(());
    }
    match erase(core, None, &typed).await {
        Ok(()) => write("This node restarts and is then blank.\r\n"),
        Err(refusal) => write(&format!("! {refusal}\r\n")),
    }
    line::read(terminal, Prompt::new("To continue, press Enter. ")).await.map(drop)
}

/// Erases a disk of another pair on a blank node, if `typed` is a command such as `erase vdb`. Returns whether it was such a
/// command; the result of the erasing is printed.
pub async fn disk(core: &Client, typed: &str) -> bool {
    let Some(disk) = typed.strip_prefix(ERASE_WORD).and_then(|rest| rest.strip_prefix(' ')) else { return false };
    let disk = disk.trim();
    match erase(core, Some(disk.to_owned()), disk).await {
        Ok(()) => write(&format!("The disk {disk} is erased.\r\n")),
        Err(refusal) => write(&format!("! {refusal}\r\n")),
    }
    true
}

async fn erase(core: &Client, disk: Option<String>, confirm: &str) -> Result<(), String> {
    let request = Request::Erase { disk, confirm: confirm.to_owned() };
    core.ask(&request).await.map(drop).map_err(|error| ApiError::from(error).error)
}
