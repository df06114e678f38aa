//! `dyad`, the command line tool: it uses the API of one node, and shows a refusal in the node's own sentence.
//!
//! It must never know how a node carries out a request. **Invariants.** A node's certificate is stored at the first contact;
//! later another certificate is refused. Tokens are stored in a file that only its owner can read. The exit code is 0 after
//! success, 1 after a refusal or a failure, 2 if the command line is wrong.

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
                // Cannot fail: the error consists of two texts.
                Some(refused) if json => eprintln!("{}", serde_json::to_string(refused).unwrap_or_default()),
                Some(refused) => eprintln!("{refused}"),
                None => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}
