//! Client of the control socket.

use crate::server::write_line;
use crate::{MAX_LINE_BYTES, Refusal, Reply, Request, Status};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The sentence for people while the core does not answer on its socket.
pub const CORE_AWAY: &str = "The storage service of this node does not answer: it is starting or has failed.";

/// Reasons for which a request failed or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket takes no connection: the core is starting, restarting or dead.
    #[error("dyad-core does not answer on {path}")]
    Unreachable {
        path: PathBuf,
        /// The error of connecting to the socket.
        #[source]
        source: std::io::Error,
    },
    /// The connection failed before the whole reply had arrived, or the reply is not one to this request. It is not known
    /// whether the request was carried out.
    #[error("dyad-core ended the connection")]
    Cut(#[source] std::io::Error),
    /// The reply has a form that this version does not know. It is not known whether the request was carried out.
    #[error("dyad-core answered in a form this program does not know")]
    Unknown(#[from] serde_json::Error),
    /// The core refused; [`RefusalCode::change_certainly_not_made`](crate::RefusalCode::change_certainly_not_made) says
    /// whether nothing was changed. The sentence is shown to people unchanged.
    #[error("{0}")]
    Refused(Refusal),
}

/// A client of the core. Each request opens its own connection, so a client survives restarts of the core.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the socket at this path. It does not connect yet.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned() }
    }

    async fn connect(&self) -> Result<BufReader<UnixStream>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.socket.clone(), source })?;
        Ok(BufReader::new(stream))
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// The core refuses, does not answer, ends the connection, or answers in an unknown form.
    pub async fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        let mut stream = self.connect().await?;
        write_request(&mut stream, request).await?;
        read_reply(&mut stream).await
    }

    /// Asks for the status as it is now.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to receive the status: now and at changes, as [`Request::Watch`] describes.
    ///
    /// # Errors
    /// The socket takes no connection, or the request cannot be written.
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        let mut stream = self.connect().await?;
        write_request(&mut stream, &Request::Watch).await?;
        Ok(Watch { stream })
    }

    /// Replaces the content of a volume by `bytes` bytes of `content`. Returns when they are durable on every in-sync node
    /// and the volume has them as its content.
    ///
    /// # Errors
    /// As [`Client::ask`]. If `content` ends early the core refuses with
    /// [`RefusalCode::ImportFailed`](crate::RefusalCode::ImportFailed), and the volume keeps its old content. After
    /// [`RefusalCode::ImportUnknown`](crate::RefusalCode::ImportUnknown) it has either content.
    pub async fn import(
        &self,
        volume: &str,
        bytes: u64,
        content: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), ClientError> {
        let mut stream = self.connect().await?;
        let request = Request::Import { volume: volume.into(), bytes };
        write_request(&mut stream, &request).await?;
        read_reply(&mut stream).await?;
        match tokio::io::copy(&mut content.take(bytes), stream.get_mut()).await {
            // The end of the stream tells the core that the rest does not come.
            Ok(sent) if sent < bytes => stream.get_mut().shutdown().await.map_err(ClientError::Cut)?,
            Ok(_) => stream.get_mut().flush().await.map_err(ClientError::Cut)?,
            // The core has stopped reading: its reply gives the reason, if the core still runs.
            Err(cut) => {
                return match read_reply(&mut stream).await {
                    Err(refused @ ClientError::Refused(_)) => Err(refused),
                    _ => Err(ClientError::Cut(cut)),
                };
            }
        }
        read_reply(&mut stream).await.map(|_| ())
    }
}

/// The connection on which a [`Client::watch`] receives each status.
#[derive(Debug)]
pub struct Watch {
    stream: BufReader<UnixStream>,
}

impl Watch {
    /// Waits for the next status. Not cancel-safe: a cancelled call may lose a part of a line, so await it in a task of its
    /// own.
    ///
    /// # Errors
    /// The connection ended, or the core answers in an unknown form.
    pub async fn next(&mut self) -> Result<Status, ClientError> {
        match read_reply(&mut self.stream).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    let text = format!("unexpected reply {reply:?}");
    ClientError::Cut(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
}

async fn write_request(stream: &mut BufReader<UnixStream>, request: &Request) -> Result<(), ClientError> {
    write_line(stream.get_mut(), request).await.map_err(ClientError::Cut)
}

async fn read_reply(stream: &mut BufReader<UnixStream>) -> Result<Reply, ClientError> {
    let mut line = String::new();
    let length = stream.take(MAX_LINE_BYTES as u64).read_line(&mut line).await.map_err(ClientError::Cut)?;
    if length == 0 {
        return Err(ClientError::Cut(std::io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&line)? {
        Reply::Refused(refusal) => Err(ClientError::Refused(refusal)),
        reply => Ok(reply),
    }
}
