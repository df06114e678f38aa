//! `dyad-console`: shows the wizard on a blank node, and the status screen on any other. init starts one process for each
//! serial line and one for the local screen.

use clap::Parser;
use dyad_api::{ApiError, SetupPhase};
use dyad_console::client::Client;
use dyad_console::erase;
use dyad_console::screen::Screen;
use dyad_console::status::{LocalInfo, addresses, draw};
use dyad_console::terminal::{Key, Terminal, write};
use dyad_console::wizard::Wizard;
use dyad_control::{Reply, Request, Status};
use std::path::PathBuf;
use std::time::Duration;

/// The wizard and the status screen of a node on this terminal.
#[derive(Debug, Parser)]
#[command(name = "dyad-console", version)]
struct Options {
    /// Directory of the local sockets.
    #[arg(long, default_value = "/run/dyad")]
    run: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let wizard = Wizard {
        node: Client::new(options.run.join("node.sock")),
        core: dyad_control::Client::new(options.run.join("core.sock")),
    };
    let mut terminal = Terminal::open()?;
    write("\r\nDyad is starting.\r\n");
    loop {
        match wizard.node.setup().await.map(|setup| setup.phase) {
            Ok(SetupPhase::Blank) => {
                if wizard.run(&mut terminal).await.is_none() {
                    return Ok(());
                }
            }
            Ok(_) => {
                if show_status(&mut terminal, &wizard).await.is_none() {
                    return Ok(());
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Shows the status screen until the node is blank. Returns `None` if the terminal is closed.
async fn show_status(terminal: &mut Terminal, wizard: &Wizard) -> Option<()> {
    let mut screen = Screen::new(terminal.size().await);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut refusal = None;
    loop {
        tokio::select! {
            key = terminal.key() => match key? {
                Key::Char('r' | 'R') => {
                    refusal = None;
                    let size = terminal.size().await;
                    drop(screen);
                    screen = Screen::new(size);
                }
                Key::Char('e' | 'E') => {
                    drop(screen);
                    erase::node(terminal, &wizard.core).await?;
                    screen = Screen::new(terminal.size().await);
                }
                Key::Char('p' | 'P') => {
                    // The open code is part of the status. A refusal is shown until a later key removes it.
                    let refused = wizard.core.ask(&Request::OpenPairingCode).await.err();
                    refusal = refused.map(|error| ApiError::from(error).error);
                }
                _ => refusal = None,
            },
            _ = ticks.tick() => {}
        }
        // After this node was erased the wizard runs again.
        if matches!(wizard.node.setup().await, Ok(setup) if setup.phase == SetupPhase::Blank) {
            return Some(());
        }
        let status: Option<Status> = match wizard.core.ask(&Request::Status).await {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        };
        let vms = status.as_ref().map(|s| s.permits.clone()).unwrap_or_default();
        let mut page = screen.empty_page();
        draw(&mut page, status.as_ref(), &LocalInfo { addresses: addresses(), vms, refusal: refusal.clone() });
        screen.show(page);
    }
}
