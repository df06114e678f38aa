//! The administration socket: a unix socket in the witness's directory, for the command line of the same user.
//!
//! The connection carries one [`Command`] (frame kind 0x0401) and one [`Report`] (frame kind 0x0402), as frames of
//! [`dyad_link::frame`].

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

/// A request of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a one-time code for enrolling a pair.
    Code,
    /// Lists the enrolled pairs.
    List,
    /// Removes a pair.
    Forget(PairId),
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The answer to [`Command::Code`].
    Code {
        /// The code to type on the node.
        code: String,
        /// How long the code is valid, in seconds.
        seconds: u64,
        /// The fingerprint of the witness's key, for comparison by the user.
        fingerprint: Fingerprint,
    },
    /// The answer to [`Command::List`].
    Pairs(Vec<PairSummary>),
    /// The answer to [`Command::Forget`]: whether the pair was enrolled.
    Forgotten(bool),
}

/// The errors of the administration socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket cannot be created or connected to.
    #[error("the witness's socket {} cannot be used; is 'dyad-witness run' running with this directory?", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The exchange of frames failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

/// Answers the command line on a socket in `directory`. The future never ends by itself.
///
/// # Errors
/// [`AdminError::Socket`] if the socket cannot be created.
pub fn serve(directory: &Path, server: &Server) -> Result<impl Future<Output = ()> + Send + use<>, AdminError> {
    let path = socket_in(directory);
    // The store is locked by this daemon, so an existing socket was left by a daemon that has ended.
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
    let command: Command = FrameReader::new(reader).next_required().await?.expect(COMMAND)?;
    let report = match command {
        Command::Code => {
            let open = shared.open_code();
            Report::Code { code: open.code, seconds: open.left.as_secs(), fingerprint: shared.fingerprint() }
        }
        // A failed store ends the daemon; the command line sees a closed socket.
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

/// Sends `command` to the daemon that runs in `directory` and returns its answer.
///
/// # Errors
/// [`AdminError::Socket`] if no daemon runs there, [`AdminError::Frame`] if the daemon closes the socket or sends an
/// unknown answer.
pub async fn command(directory: &Path, command: &Command) -> Result<Report, AdminError> {
    let path = socket_in(directory);
    let stream = UnixStream::connect(&path).await.map_err(|source| AdminError::Socket { path, source })?;
    let (reader, writer) = stream.into_split();
    FrameWriter::new(writer).send(COMMAND, command).await?;
    Ok(FrameReader::new(reader).next_required().await?.expect(REPORT)?)
}
