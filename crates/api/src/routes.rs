//! Every route, in one place: the server serves it, the OpenAPI document describes it, a test walks it.

/// How a route is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Do.
    Post,
    /// Replace.
    Put,
    /// Remove.
    Delete,
}

/// What a request or a reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// JSON of the schema with this name.
    Json(&'static str),
    /// A JSON list of the schema with this name.
    List(&'static str),
    /// Raw bytes.
    Raw,
    /// Plain text.
    Text,
    /// Server-sent events, each with JSON of the schema with this name.
    Events(&'static str),
    /// The connection becomes a WebSocket of binary messages.
    WebSocket,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// How it is asked.
    pub method: Method,
    /// Where, with `{name}` for a name.
    pub path: &'static str,
    /// Its name in the OpenAPI document.
    pub id: &'static str,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// Whether a session is needed.
    pub login: bool,
    /// What is sent.
    pub request: Body,
    /// What comes back.
    pub reply: Body,
    /// HTTP status when it worked.
    pub status: u16,
}

const fn route(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Route {
    Route { method, path, id, summary, login: true, request: Body::Empty, reply: Body::Empty, status: 204 }
}

impl Route {
    const fn open(mut self) -> Self {
        self.login = false;
        self
    }
    const fn takes(mut self, request: Body) -> Self {
        self.request = request;
        self
    }
    const fn gives(mut self, status: u16, reply: Body) -> Self {
        self.status = status;
        self.reply = reply;
        self
    }
}

use Body::{Events, Json, List, Raw, Text, WebSocket};
use Method::{Delete, Get, Post, Put};

/// Every route of the API.
pub const ROUTES: &[Route] = &[
    route(Get, "/api/v1/setup", "getSetup", "How far setup is, and what it needs to know.")
        .open()
        .gives(200, Json("SetupReply")),
    route(Post, "/api/v1/setup", "beginSetup", "Begin setup; it runs as a task whose steps GET shows. Refused once the node is set up.")
        .open()
        .takes(Json("SetupRequest"))
        .gives(202, Json("SetupReply")),
    route(Get, "/api/v1/setup/offers", "listOffers", "First nodes that wait for their second.")
        .open()
        .gives(200, List("OfferView")),
    route(Post, "/api/v1/login", "login", "Begin a session.")
        .open()
        .takes(Json("LoginRequest"))
        .gives(200, Json("LoginReply")),
    route(Post, "/api/v1/logout", "logout", "End the session."),
    route(Get, "/api/v1/status", "getStatus", "The state of the pair as this node sees it; details only with a session.")
        .open()
        .gives(200, Json("StatusReply")),
    route(Get, "/api/v1/events", "watchStatus", "`status` events: the state now and at every change, details only with a session. With one also `vms` events, each with every VM.")
        .open()
        .gives(200, Events("StatusReply")),
    route(Get, "/api/v1/timeline", "getTimeline", "What happened, oldest first; `?since=` gives the first event number wanted.")
        .gives(200, Json("TimelineReply")),
    route(Post, "/api/v1/pairing-code", "openPairingCode", "Open the code with which the second node joins.")
        .gives(200, Json("PairingCodeReply")),
    route(Post, "/api/v1/witness", "enrolWitness", "Enrol at a witness.").takes(Json("WitnessRequest")),
    route(Post, "/api/v1/watchdog/prove", "proveWatchdog", "Prove that the watchdog resets this node: it restarts now, and the status says afterwards whether it is proven. Refused while VMs run here."),
    route(Post, "/api/v1/erase", "eraseNode", "Start over: this node leaves its pair and becomes blank. What must be typed to confirm it is in the refusal.")
        .takes(Json("EraseRequest")),
    route(Post, "/api/v1/setup/erase-disk", "eraseDisk", "Erase a disk that carries data of a pair, on a node that is not set up.")
        .open()
        .takes(Json("EraseDiskRequest")),
    route(Get, "/api/v1/volumes", "listVolumes", "Every volume.").gives(200, List("VolumeView")),
    route(Post, "/api/v1/volumes", "createVolume", "Make a volume; it reads as zeros.")
        .takes(Json("CreateVolume"))
        .gives(201, Json("VolumeView")),
    route(Delete, "/api/v1/volumes/{name}", "deleteVolume", "Delete a volume with all it holds."),
    route(Put, "/api/v1/volumes/{name}/content", "importVolume", "Replace all that a volume holds by a raw image; needs a Content-Length, and `?sha256=` lets it be checked. The old content is dropped when all of the image is durable: afterwards the volume holds the one or the other, and has another id if it holds the image.")
        .takes(Raw)
        .gives(200, Json("ImportReply")),
    route(Get, "/api/v1/vms", "listVms", "Every VM.").gives(200, List("VmView")),
    route(Post, "/api/v1/vms", "createVm", "Make a VM.").takes(Json("CreateVm")).gives(201, Json("VmView")),
    route(Delete, "/api/v1/vms/{name}", "deleteVm", "Delete a stopped VM; its volumes stay."),
    route(Post, "/api/v1/vms/{name}/start", "startVm", "Start a VM."),
    route(Post, "/api/v1/vms/{name}/stop", "stopVm", "Ask the guest to shut down; after the pair's grace time it is stopped hard."),
    route(Post, "/api/v1/vms/{name}/kill", "killVm", "Stop a VM at once, like pulling its plug."),
    route(Get, "/api/v1/vms/{name}/serial", "attachSerial", "The VM's serial line, both ways.").gives(101, WebSocket),
    route(Get, "/api/v1/vms/{name}/serial/log", "readSerialLog", "What the VM wrote to its serial line; `?follow=1` goes on as it writes.")
        .gives(200, Text),
    route(Get, "/metrics", "getMetrics", "A few honest metrics in Prometheus text form.").open().gives(200, Text),
];
