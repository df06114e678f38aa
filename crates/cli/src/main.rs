//! `dyad`, the command line: everything goes through the API of one node, and a refusal is the node's own sentence.
//!
//! It must never know how anything is done. **Invariants.** A node's certificate is remembered at the first contact
//! and never silently accepted after it has changed. Tokens lie in a file only their owner can read. The exit code is 0
//! if it was done, 1 if it was refused or failed, 2 if the command line was wrong.

mod arguments;
mod client;
mod commands;
mod pin;
mod print;
mod setup;
mod size;
mod store;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    let json = arguments.json;
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<dyad_api::ApiError>() {
                // The type is a text and a word: JSON can always hold it.
                Some(refused) if json => eprintln!("{}", serde_json::to_string(refused).unwrap_or_default()),
                Some(refused) => eprintln!("{refused}"),
                None => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}
