//! The route table. `dyad-node` builds its router from it, the OpenAPI document is generated from it, and a test requests
//! each of its routes.
//!
//! **Invariants.** [`RouteId`] and [`ROUTES`] come from one list, so each id has exactly one route. `dyad-node` matches
//! [`RouteId`] exhaustively to find the handler and takes method, path and permission from the table: a route without a
//! handler does not compile, and no handler is reached by another path or without the permission named here.

/// HTTP method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads state and changes nothing.
    Get,
    /// Creates an object or starts an action.
    Post,
    /// Replaces the whole content of a volume.
    Put,
    Delete,
}

/// The condition under which a caller may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// No session is needed.
    Public,
    /// A valid session is needed; without one the answer is 401 `login-needed`.
    Session,
}

/// Content type and schema of a request's or a reply's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Empty,
    /// JSON of the schema with this name.
    Json(&'static str),
    /// A JSON list of the schema with this name.
    List(&'static str),
    /// Bytes of a raw image (`application/octet-stream`).
    Raw,
    /// Text for people or for Prometheus (`text/plain`).
    Text,
    /// Server-sent events, each with JSON of the schema with this name.
    Events(&'static str),
    /// The connection becomes a WebSocket of binary messages.
    WebSocket,
}

/// One row of the route table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Key by which `dyad-node` finds the handler.
    pub id: RouteId,
    pub method: Method,
    /// Path; `{name}` stands for the name of a VM or volume.
    pub path: &'static str,
    /// `operationId` in the OpenAPI document. It never changes, because generated clients name their functions after it.
    pub operation: &'static str,
    /// Effect of the route in one sentence, for the OpenAPI document.
    pub summary: &'static str,
    /// Checked by the server before the handler runs.
    pub permission: Permission,
    /// Content of the request.
    pub request: Body,
    /// Content of a successful reply.
    pub reply: Body,
    /// HTTP status of a successful reply.
    pub status: u16,
}

impl Route {
    const fn public(mut self) -> Self {
        self.permission = Permission::Public;
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

macro_rules! routes {
    ($($id:ident: $method:ident $path:literal, $operation:literal, $summary:literal $(=> $change:ident($($value:expr),*))*;)*) => {
        /// Key of a route: one variant for each row of `routes!`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RouteId {
            $($id,)*
        }

        /// Every route of the API, in the order of the OpenAPI document.
        pub const ROUTES: &[Route] = &[
            $(Route {
                id: RouteId::$id,
                method: Method::$method,
                path: $path,
                operation: $operation,
                summary: $summary,
                permission: Permission::Session,
                request: Body::Empty,
                reply: Body::Empty,
                status: 204,
            }$(.$change($($value),*))*,)*
        ];
    };
}

use Body::{Events, Json, List, Raw, Text, WebSocket};

// A row without `=> public()` needs a session; without `=> gives(..)` its success is 204 without content.
routes! {
    GetSetup: Get "/api/v1/setup", "getSetup", "The state of setup, and on a blank node the questions, disks and ports."
        => public() => gives(200, Json("SetupReply"));
    BeginSetup: Post "/api/v1/setup", "beginSetup", "Begin setup; it runs as a task whose steps GET shows. Refused once the node is set up."
        => public() => takes(Json("SetupRequest")) => gives(202, Json("SetupReply"));
    ListOffers: Get "/api/v1/setup/offers", "listOffers", "First nodes that wait for their second node."
        => public() => gives(200, List("OfferView"));
    Login: Post "/api/v1/login", "login", "Begin a session."
        => public() => takes(Json("LoginRequest")) => gives(200, Json("LoginReply"));
    Logout: Post "/api/v1/logout", "logout", "End the session.";
    GetStatus: Get "/api/v1/status", "getStatus", "The state of the pair as this node sees it; details only with a session."
        => public() => gives(200, Json("StatusReply"));
    WatchStatus: Get "/api/v1/events", "watchStatus", "Server-sent events: `status` with the state now and at every change, details only with a session; with a session also `vms`, each with all VMs."
        => public() => gives(200, Events("StatusReply"));
    GetTimeline: Get "/api/v1/timeline", "getTimeline", "Events of this node, oldest first; `?since=` gives the first event number wanted."
        => gives(200, Json("TimelineReply"));
    OpenPairingCode: Post "/api/v1/pairing-code", "openPairingCode", "Open the code with which the second node joins."
        => gives(200, Json("PairingCodeReply"));
    EnrolWitness: Post "/api/v1/witness", "enrolWitness", "Enrol at a witness."
        => takes(Json("WitnessRequest"));
    ProveWatchdog: Post "/api/v1/watchdog/prove", "proveWatchdog", "Prove that the watchdog resets this node: it restarts now, and the status says afterwards whether it is proven. Refused while VMs run here.";
    EraseNode: Post "/api/v1/erase", "eraseNode", "Erase this node: it leaves its pair and becomes blank. A request with a wrong `confirm` is refused with a sentence that names the text to type."
        => takes(Json("EraseRequest"));
    EraseDisk: Post "/api/v1/setup/erase-disk", "eraseDisk", "Erase a disk that carries data of a pair, on a node that is not set up."
        => public() => takes(Json("EraseDiskRequest"));
    ListVolumes: Get "/api/v1/volumes", "listVolumes", "All volumes of the pair."
        => gives(200, List("VolumeView"));
    CreateVolume: Post "/api/v1/volumes", "createVolume", "Create a volume; it reads as zeros."
        => takes(Json("CreateVolume")) => gives(201, Json("VolumeView"));
    DeleteVolume: Delete "/api/v1/volumes/{name}", "deleteVolume", "Delete a volume with its content.";
    ImportVolume: Put "/api/v1/volumes/{name}/content", "importVolume", "Replace the content of a volume by a raw image. The request needs a Content-Length; with `?sha256=` an image with another checksum is refused. The old content is replaced only when the whole image is durable, so the volume always holds either the old content or the whole image; an import gives the volume another id."
        => takes(Raw) => gives(200, Json("ImportReply"));
    ListVms: Get "/api/v1/vms", "listVms", "All VMs of the pair."
        => gives(200, List("VmView"));
    CreateVm: Post "/api/v1/vms", "createVm", "Create a VM."
        => takes(Json("CreateVm")) => gives(201, Json("VmView"));
    DeleteVm: Delete "/api/v1/vms/{name}", "deleteVm", "Delete a stopped VM; its volumes stay.";
    StartVm: Post "/api/v1/vms/{name}/start", "startVm", "Start a VM.";
    StopVm: Post "/api/v1/vms/{name}/stop", "stopVm", "Ask the guest to shut down; after the pair's grace time its process is killed.";
    KillVm: Post "/api/v1/vms/{name}/kill", "killVm", "Kill a VM's process at once, like a power cut, and set its intent to stopped.";
    AttachSerial: Get "/api/v1/vms/{name}/serial", "attachSerial", "The VM's serial line as a WebSocket: binary messages in both directions."
        => gives(101, WebSocket);
    ReadSerialLog: Get "/api/v1/vms/{name}/serial/log", "readSerialLog", "The last output of the VM on its serial line; with `?follow=1` the reply continues with new output."
        => gives(200, Text);
    GetMetrics: Get "/metrics", "getMetrics", "Metrics in Prometheus text form; a figure that is not known is left out."
        => public() => gives(200, Text);
}
