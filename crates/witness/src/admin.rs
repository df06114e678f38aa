//! The daemon's local side: a unix socket in its directory, for the command line of the same user.
//!
//! Frames of [`dyad_link::frame`]: one [`Command`] (kind 0x0401), one [`Report`] (kind 0x0402).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dyad_link::frame::{FrameError, FrameReader, FrameWriter};
use dyad_link::{Fingerprint, PairId};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::server::{PairSummary, Server, Shared};

const COMMAND: u16 = 0x0401;
const REPORT: u16 = 0x0402;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Open a one-time code.
    Code,
    /// Name the pairs.
    List,
    /// Remove a pair.
    Forget(PairId),
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// To [`Command::Code`].
    Code {
        /// What to type on the node.
        code: String,
        /// How long it may be used, in seconds.
        seconds: u64,
        /// The witness's key, for those who want to compare.
        fingerprint: Fingerprint,
    },
    /// To [`Command::List`].
    Pairs(Vec<PairSummary>),
    /// To [`Command::Forget`]: whether there was such a pair.
    Forgotten(bool),
}

/// Why the local side does not work.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket.
    #[error("the witness's socket {} cannot be used; is 'dyad-witness run' running with this directory?", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The conversation.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

/// Answers the command line on a socket in `directory`; ends only when dropped.
///
/// # Errors
/// [`AdminError::Socket`] if the socket cannot be made.
pub fn serve(directory: &Path, server: &Server) -> Result<impl Future<Output = ()> + Send + use<>, AdminError> {
    let path = socket_in(directory);
    // The store is locked, so a socket that lies there is left over from a dead daemon.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    let listener = listener.map_err(|source| AdminError::Socket { path, source })?;
    let shared = server.shared();
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(Arc::clone(&shared), stream))),
                Err(error) => tracing::warn!(%error, "a local command could not be accepted"),
            }
        }
    })
}

async fn answer(shared: Arc<Shared>, stream: UnixStream) -> Result<(), FrameError> {
    let (reader, writer) = stream.into_split();
    let command: Command = FrameReader::new(reader).require().await?.expect(COMMAND)?;
    let report = match command {
        Command::Code => {
            let open = shared.open_code();
            Report::Code { code: open.code, seconds: open.left.as_secs(), fingerprint: shared.fingerprint() }
        }
        // A store that has failed ends the daemon; the command line sees a closed socket.
        Command::List => match shared.list().await {
            Ok(pairs) => Report::Pairs(pairs),
            Err(_) => return Ok(()),
        },
        Command::Forget(pair) => match shared.forget(pair).await {
            Ok(was_there) => Report::Forgotten(was_there),
            Err(_) => return Ok(()),
        },
    };
    FrameWriter::new(writer).send(REPORT, &report).await
}

/// Gives `command` to the daemon that runs in `directory`.
///
/// # Errors
/// Any [`AdminError`].
pub async fn command(directory: &Path, command: &Command) -> Result<Report, AdminError> {
    let path = socket_in(directory);
    let stream = UnixStream::connect(&path).await.map_err(|source| AdminError::Socket { path, source })?;
    let (reader, writer) = stream.into_split();
    FrameWriter::new(writer).send(COMMAND, command).await?;
    Ok(FrameReader::new(reader).require().await?.expect(REPORT)?)
}
