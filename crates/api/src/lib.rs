//! The API of a node: its JSON types, the list of routes, the OpenAPI document, and the sentence that says whether the pair
//! is protected.
//!
//! Web pages and CLI use these types; `dyad-node` implements [`Service`] and serves [`ROUTES`].
//!
//! This crate must never know: sockets, TLS, axum, templates, or how a request is carried out.
//!
//! **Invariants.** The JSON of a reply has types of this crate: a type of `control` or `desired` is never sent to a client
//! of the API. An error is one sentence and one [`ErrorCode`], which determines the HTTP status. A [`Session`] is built only
//! by the [`SessionStore`]. [`verdict`] says "protected" only when nothing is missing, and it names each missing condition.
//! `docs/openapi.json` is the document that [`openapi`] returns (`tests/openapi.rs`).

mod error;
mod openapi;
mod routes;
mod service;
mod session;
mod setup;
mod source;

mod status;
pub mod surroundings;
mod verdict;
mod vms;
mod volumes;

pub use error::{ApiError, ErrorCode};
pub use openapi::openapi;
pub use routes::{Body, Method, Permission, ROUTES, Route, RouteId};
pub use service::{Service, ServiceFuture};
pub use session::{Session, SessionStore, SessionToken};
pub use setup::{
    ChoiceView, DiskView, EraseDiskRequest, EraseRequest, LinkView, OfferView, PairingCodeReply, QuestionView,
    SetupPhase, SetupReply, SetupRequest, StepState, StepView, TaskView, WitnessRequest, questions,
};
pub use source::Source;
pub use status::{
    AlarmView, Details, EMULATION_WARNING, LinkDetail, LoginReply, LoginRequest, MirrorDetail, NodeDetail, PairRole,
    PoolDetail, PoolDiskDetail, StatusReply, TimelineEvent, TimelineReply, Versions, WatchdogDetail, WitnessDetail,
};
pub use verdict::{Verdict, verdict};
pub use vms::{CreateVm, FirmwareView, IntentView, VmState, VmView};
pub use volumes::{CreateVolume, ImportReply, VolumeView};

/// Name of the cookie in which a browser sends its session's token.
pub const SESSION_COOKIE: &str = "dyad_session";

/// TCP port of the web pages and the API (HTTPS).
pub const HTTPS_PORT: u16 = 443;
