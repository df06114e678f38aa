//! The events of the [`ControlPlane`](crate::control_plane). Requests of handlers are one kind of them.

use std::sync::Arc;

use dyad_api::{ApiError, Session, Source};
use dyad_control::{ClientError, Status};
use dyad_desired::Document;
use tokio::sync::oneshot;

use crate::{
    setup::{SetupProgress, SetupRun},
    vms::SupervisorReport,
};

/// An input of the control plane. Its state changes only because of an event.
pub(crate) enum Event {
    /// A new status of the core; `None` if the core does not answer.
    CoreStatus(Option<Box<Status>>),
    /// The result of a read of the document that the control plane began.
    DocumentRead {
        /// Generation of the document that was known when the read began.
        known: u64,
        result: Result<Arc<Document>, ClientError>,
    },
    /// A document that a request handler or a change of the document has read.
    DocumentLearned(Arc<Document>),
    /// A report of the supervisor; `None` if its task has ended.
    Supervisor(Option<SupervisorReport>),
    SetupProgress(SetupProgress),
    /// The result of a change of the document that the control plane itself asked for.
    ChangeDone(Result<(), ClientError>),
    Request(NodeRequest),
    /// This node's management addresses, read from the network every 10 s.
    Addresses(Vec<String>),
    /// The request to shut the node down.
    ShutDown,
    /// The end of a delay: a read or a change of the document may begin.
    Tick,
}

/// A request to the control plane, from a handler of the API or from the seed file.
pub(crate) enum NodeRequest {
    /// Asks whether a password from this source may be compared now. If so, the try counts as wrong until
    /// [`NodeRequest::RetractTry`].
    MayTryPassword {
        source: Source,
        reply: oneshot::Sender<bool>,
    },
    /// Says that the password was right or could not be compared, so that the last try of this source does not count.
    RetractTry(Source),
    BeginSession {
        token: String,
        user: String,
    },
    CheckSession {
        token: String,
        reply: oneshot::Sender<Option<Session>>,
    },
    EndSession {
        token: String,
    },
    BeginSetup {
        run: Box<SetupRun>,
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// Shows this refusal of a seed file as a failed setup.
    SeedRefused(ApiError),
    /// Kills the process of this VM.
    KillVm {
        name: String,
    },
}
