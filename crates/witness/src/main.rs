//! `dyad-witness`: the witness daemon and its command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use dyad_link::PairId;
use dyad_types::{NodeId, WITNESS_PORT};
use dyad_witness::admin::{self, AdminCommand, AdminReport};
use dyad_witness::install::{InstallPlan, STATE_DIRECTORY};
use dyad_witness::server::{PairSummary, Server, WitnessConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Wanted limit on open files: one for each connection, and a reserve.
const OPEN_FILES_LIMIT: u64 = 65_536;

/// The outside tiebreaker of Dyad pairs.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve pairs over the network until the process is told to end.
    Run {
        /// Directory of its key and records.
        #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIRECTORY)]
        dir: PathBuf,
        /// Address to listen on.
        #[arg(long, value_name = "ADDRESS:PORT", default_value_t = default_listen())]
        listen: SocketAddr,
    },
    /// Print a one-time code to enrol one pair.
    Code {
        /// Directory of the running witness.
        #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIRECTORY)]
        dir: PathBuf,
    },
    /// List the enrolled pairs.
    List {
        /// Directory of the running witness.
        #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIRECTORY)]
        dir: PathBuf,
    },
    /// Remove a pair; its vote here is gone until it is enrolled again.
    Forget {
        /// Directory of the running witness.
        #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIRECTORY)]
        dir: PathBuf,
        /// The pair's id, as 'list' prints it.
        pair: PairId,
    },
    /// Install this program as a systemd service and start it.
    Install {
        /// Install into the file tree of another system and do not start it.
        #[arg(long, value_name = "DIRECTORY", default_value = "/")]
        root: PathBuf,
        /// Address the service listens on.
        #[arg(long, value_name = "ADDRESS:PORT", default_value_t = default_listen())]
        listen: SocketAddr,
        /// Only print what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, WITNESS_PORT))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    if let Action::Install { root, listen, dry_run } = arguments.action {
        return install(root, listen, dry_run);
    }
    tokio::runtime::Runtime::new().context("no runtime could be started")?.block_on(run_action(arguments.action))
}

async fn run_action(action: Action) -> Result<()> {
    match action {
        Action::Run { dir, listen } => run(dir, listen).await,
        Action::Code { dir } => match admin::command(&dir, &AdminCommand::Code).await? {
            AdminReport::Code { code, seconds, fingerprint } => {
                println!("{code}");
                println!("Type this code on the pair within {} minutes. It works once.", seconds / 60);
                println!("Fingerprint of this witness: {fingerprint}");
                Ok(())
            }
            other => bail!(
                "the running witness gave an unexpected answer, so it is of another version: restart it ({other:?})"
            ),
        },
        Action::List { dir } => match admin::command(&dir, &AdminCommand::List).await? {
            AdminReport::Pairs(pairs) => {
                pairs.iter().for_each(|pair| println!("{}", summary_line(pair)));
                Ok(())
            }
            other => bail!(
                "the running witness gave an unexpected answer, so it is of another version: restart it ({other:?})"
            ),
        },
        Action::Forget { dir, pair } => match admin::command(&dir, &AdminCommand::Forget(pair)).await? {
            AdminReport::Forgotten(true) => Ok(()),
            _ => bail!("there is no pair {pair} here; 'dyad-witness list' names them all"),
        },
        Action::Install { .. } => unreachable!("handled without a runtime"),
    }
}

/// The line for a pair: id, letters of the nodes with a key, epoch, state of the witness's vote, name.
fn summary_line(pair: &PairSummary) -> String {
    let nodes: String = [NodeId::A, NodeId::B]
        .into_iter()
        .zip(pair.keys)
        .map(|(node, key)| if key.is_some() { char::from(node.letter()) } else { '-' })
        .collect();
    let (epoch, vote_state) = match pair.epoch {
        None => ("-".into(), "damaged"),
        Some(epoch) if pair.votes => (epoch.to_string(), "votes"),
        Some(epoch) => (epoch.to_string(), "not admitted"),
    };
    format!("{}  {nodes}  epoch {epoch:<6}  {vote_state:<12}  {}", pair.pair, pair.name)
}

async fn run(directory: PathBuf, listen: SocketAddr) -> Result<()> {
    raise_open_files();
    let server = Server::open(&WitnessConfig { directory: directory.clone(), listen })?;
    let local = admin::serve(&directory, &server)?;
    // With port 0 the kernel chooses the port; tests read it from this line.
    println!("listening on {}", server.address()?);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        failed = server.run() => Err(failed).context("the witness stops rather than answer from memory"),
        () = local => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Raises the soft limit on open files to [`OPEN_FILES_LIMIT`], or as far as the hard limit allows.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let target = limit.maximum.map_or(OPEN_FILES_LIMIT, |most| most.min(OPEN_FILES_LIMIT));
    if limit.current.is_some_and(|current| current < target) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum });
    }
}

fn install(root: PathBuf, listen: SocketAddr, dry_run: bool) -> Result<()> {
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let plan = InstallPlan { root, program, listen };
    if dry_run {
        plan.describe().iter().for_each(|step| println!("{step}"));
        return Ok(());
    }
    plan.carry_out()?;
    println!("Installed. 'dyad-witness code' prints a code to enrol a pair.");
    Ok(())
}
