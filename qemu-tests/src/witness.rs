//! The witness of a rig: the shipped program, run outside both nodes.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child::{Program, Running};
use crate::wait;

/// How the nodes reach this machine through their emulated network.
const HOST_SEEN_FROM_NODES: &str = "10.0.2.2";

/// A witness daemon, running or not.
#[derive(Debug)]
pub struct Witness {
    program: PathBuf,
    store: PathBuf,
    log: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Witness {
    /// Starts `program` with a fresh store below `sockets` (it makes a socket there) and its log below `records`.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(program: &Path, records: &Path, sockets: &Path) -> Result<Self> {
        let store = sockets.join("witness");
        fs::create_dir_all(&store)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = records.join("witness.log");
        let mut witness = Self { program: program.to_owned(), store, log, port, running: None };
        witness.start()?;
        Ok(witness)
    }

    /// Its address as a node must be told.
    pub fn address(&self) -> String {
        format!("{HOST_SEEN_FROM_NODES}:{}", self.port)
    }

    /// Starts it again after [`Witness::stop`], with the store it had.
    ///
    /// # Errors
    /// It runs already, or does not listen in time.
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

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> Result<()> {
        ensure!(self.running.take().is_some(), "The witness does not run.");
        Ok(())
    }

    /// Makes it hang; [`Witness::thaw`] ends it.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.running.as_ref().context("The witness does not run.")?.freeze()
    }

    /// Ends [`Witness::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.running.as_ref().context("The witness does not run.")?.thaw()
    }

    /// A fresh one-time code for one pair.
    ///
    /// # Errors
    /// The program refuses.
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
