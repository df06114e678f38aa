//! The witness of a rig: the program `dyad-witness` that ships, as a process beside the nodes.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child::{Program, RunningProgram};
use crate::wait;

/// Address at which the nodes reach this machine through QEMU's user-mode network.
const BUILD_MACHINE_ADDRESS: &str = "10.0.2.2";

/// A witness daemon, running or not.
#[derive(Debug)]
pub struct Witness {
    program: PathBuf,
    store: PathBuf,
    log: PathBuf,
    port: u16,
    running: Option<RunningProgram>,
}

impl Witness {
    /// Starts `program` with a new store below `sockets` (the witness creates a socket there) and its log below
    /// `records`.
    ///
    /// # Errors
    /// As [`Witness::start`].
    pub fn new(program: &Path, records: &Path, sockets: &Path) -> Result<Self> {
        let store = sockets.join("witness");
        fs::create_dir_all(&store)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = records.join("witness.log");
        let mut witness = Self { program: program.to_owned(), store, log, port, running: None };
        witness.start()?;
        Ok(witness)
    }

    /// Address of the witness as the nodes reach it.
    pub fn address(&self) -> String {
        format!("{BUILD_MACHINE_ADDRESS}:{}", self.port)
    }

    /// Starts the witness with its store, also after [`Witness::stop`], and waits until it listens.
    ///
    /// # Errors
    /// The witness runs already, or does not listen in time.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "The witness runs already.");
        let mut program = Program::new(&self.program);
        program.arg("run").arg("--dir").arg(&self.store);
        program.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        self.running = Some(program.start(&self.log)?);
        wait::until_ok("the witness to listen", std::time::Duration::from_secs(30), || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", self.port))?)
        })
        .with_context(|| format!("The witness did not come up; see {}.", self.log.display()))?;
        Ok(())
    }

    /// Ends the witness with SIGKILL; its store stays.
    ///
    /// # Errors
    /// The witness does not run.
    pub fn stop(&mut self) -> Result<()> {
        ensure!(self.running.take().is_some(), "The witness does not run.");
        Ok(())
    }

    /// Stops the process with SIGSTOP; [`Witness::thaw`] ends this.
    ///
    /// # Errors
    /// The witness does not run.
    pub fn freeze(&self) -> Result<()> {
        self.running.as_ref().context("The witness does not run.")?.freeze()
    }

    /// Ends [`Witness::freeze`].
    ///
    /// # Errors
    /// The witness does not run.
    pub fn thaw(&self) -> Result<()> {
        self.running.as_ref().context("The witness does not run.")?.thaw()
    }

    /// A new one-time code, with which one pair enrols.
    ///
    /// # Errors
    /// The program `dyad-witness code` fails.
    pub fn code(&self) -> Result<String> {
        let output = Command::new(&self.program)
            .arg("code")
            .arg("--dir")
            .arg(&self.store)
            .output()
            .with_context(|| format!("Cannot start {}.", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "The witness gave no code: {}", String::from_utf8_lossy(&output.stderr));
        let code = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
        Ok(code.with_context(|| format!("No code in {text:?}."))?.to_owned())
    }
}
