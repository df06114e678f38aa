//! Programs that the rig starts. The kernel kills each of them when the rig ends.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Command line of a program to start; [`Program::start`] starts it.
#[derive(Debug)]
pub struct Program {
    command: Command,
}

impl Program {
    /// `program` by name or path. The kernel kills it when the thread that started it ends, so start it from a
    /// thread that runs as long as the rig.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        Self { command }
    }

    /// Adds one argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments, in this order.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.command.args(args);
        self
    }

    /// Starts the program in a process group of its own, which the terminal's Ctrl-C does not reach, with its output
    /// in `log`.
    ///
    /// # Errors
    /// The log or the program cannot be opened.
    pub fn start(&mut self, log: &Path) -> Result<RunningProgram> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("Cannot open {}.", log.display()))?;
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("Cannot start {:?}.", self.command))?;
        Ok(RunningProgram { child })
    }
}

/// A started program. Dropping this value kills the program and waits for its end.
#[derive(Debug)]
pub struct RunningProgram {
    child: Child,
}

impl RunningProgram {
    /// Process id of the program; `setpriv` replaces itself by it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the process with SIGSTOP; [`RunningProgram::thaw`] lets it go on.
    ///
    /// # Errors
    /// The process has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues the process with SIGCONT after [`RunningProgram::freeze`].
    ///
    /// # Errors
    /// The process has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("Process {} takes no {signal}.", self.child.id()))
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // The process may have ended by itself; both calls then fail, which is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
