//! Events of the [`ControlPlane`](crate::control_plane), and the requests that are among them.

use std::sync::Arc;

use dyad_api::{ApiError, Session, Source};
use dyad_control::{ClientError, Status};
use dyad_desired::Document;
use tokio::sync::oneshot;

use crate::{
    setup::{SetupProgress, SetupRun},
    vms::SupervisorReport,
};

/// Everything that changes the state of the control plane.
pub(crate) enum Event {
    /// New status of the core; `None`: it does not answer.
    CoreStatus(Option<Box<Status>>),
    /// A read of the document that the control plane began has ended.
    DocumentRead {
        /// Generation that was known when the read began.
        known: u64,
        result: Result<Arc<Document>, ClientError>,
    },
    /// A request handler has read the document.
    DocumentLearned(Arc<Document>),
    /// From the supervisor; `None`: its task has ended.
    Supervisor(Option<SupervisorReport>),
    SetupProgress(SetupProgress),
    /// A change that the control plane itself asked for has ended.
    ChangeDone(Result<(), ClientError>),
    Request(NodeRequest),
    /// This node's management addresses, read from the network again.
    Addresses(Vec<String>),
    /// The node shuts down.
    ShutDown,
    /// A delay has ended.
    Tick,
}

/// What request handlers and the seed file ask of the control plane.
pub(crate) enum NodeRequest {
    /// May a password from this source be compared now? If so the try counts as wrong until [`NodeRequest::NotWrong`].
    MayTry {
        source: Source,
        answer: oneshot::Sender<bool>,
    },
    /// The password was right, or could not be compared.
    NotWrong(Source),
    BeginSession {
        token: String,
        user: String,
    },
    CheckSession {
        token: String,
        answer: oneshot::Sender<Option<Session>>,
    },
    EndSession {
        token: String,
    },
    BeginSetup {
        run: Box<SetupRun>,
        answer: oneshot::Sender<Result<(), ApiError>>,
    },
    /// The seed file was refused for this reason.
    SeedRefused(ApiError),
    /// Kill this VM's process.
    KillVm {
        name: String,
    },
}
