//! The administration socket: a unix socket in the witness's directory, for the command line of the same user.
//!
//! The connection carries one [`AdminCommand`] (frame kind 0x0401) and one [`AdminReport`] (frame kind 0x0402), as
//! frames of [`dyad_link::frame`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dyad_link::frame::{FrameError, FrameReader, FrameWriter};
use dyad_link::{Fingerprint, PairId};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::accept::next_connection;
use crate::server::{PairSummary, Server, SharedState};

const COMMAND: u16 = 0x0401;
const REPORT: u16 = 0x0402;

/// A command of `dyad-witness` to the running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminCommand {
    /// Create a one-time code for enrolling a pair.
    Code,
    /// List the enrolled pairs.
    List,
    /// Remove the entry of a pair.
    Forget(PairId),
}

/// The answer to an [`AdminCommand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReport {
    /// The answer to [`AdminCommand::Code`].
    Code {
        /// The code to type on the node.
        code: String,
        /// Time until the code expires, in seconds.
        seconds: u64,
        /// The fingerprint of the witness's key, to be compared with the fingerprint that the node shows.
        fingerprint: Fingerprint,
    },
    /// The answer to [`AdminCommand::List`].
    Pairs(Vec<PairSummary>),
    /// The answer to [`AdminCommand::Forget`]: whether the pair was enrolled.
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
    /// The connection to the daemon broke, or a message is invalid.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("admin.sock")
}

/// Opens the socket in `directory`. The returned future answers commands and does not end by itself.
///
/// # Errors
/// [`AdminError::Socket`] if the socket cannot be created.
pub fn serve(directory: &Path, server: &Server) -> Result<impl Future<Output = ()> + Send + use<>, AdminError> {
    let path = socket_in(directory);
    // This daemon has locked the store, so an existing socket belonged to a daemon that has ended.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    let listener = listener.map_err(|source| AdminError::Socket { path, source })?;
    let shared = server.shared();
    Ok(async move {
        loop {
            let (stream, _) = next_connection(|| listener.accept()).await;
            drop(tokio::spawn(answer(Arc::clone(&shared), stream)));
        }
    })
}

async fn answer(shared: Arc<SharedState>, stream: UnixStream) -> Result<(), FrameError> {
    let (reader, writer) = stream.into_split();
    let command: AdminCommand = FrameReader::new(reader).next_required().await?.expect(COMMAND)?;
    let report = match command {
        AdminCommand::Code => {
            let open = shared.open_code();
            AdminReport::Code { code: open.code, seconds: open.left.as_secs(), fingerprint: shared.fingerprint() }
        }
        // A failed store ends the daemon, so no report is sent; the command line sees a closed socket.
        AdminCommand::List => match shared.list().await {
            Ok(pairs) => AdminReport::Pairs(pairs),
            Err(_) => return Ok(()),
        },
        AdminCommand::Forget(pair) => match shared.forget(pair).await {
            Ok(was_there) => AdminReport::Forgotten(was_there),
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
pub async fn command(directory: &Path, command: &AdminCommand) -> Result<AdminReport, AdminError> {
    let path = socket_in(directory);
    let stream = UnixStream::connect(&path).await.map_err(|source| AdminError::Socket { path, source })?;
    let (reader, writer) = stream.into_split();
    FrameWriter::new(writer).send(COMMAND, command).await?;
    Ok(FrameReader::new(reader).next_required().await?.expect(REPORT)?)
}
