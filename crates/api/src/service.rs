//! The interface between pages or HTTP handlers and a node. `dyad-node` implements it.

use std::{future::Future, pin::Pin};

use dyad_wizard::{Answers, Surroundings};

use crate::{
    ApiError, CreateVm, CreateVolume, LoginReply, OfferView, PairingCodeReply, Session, SetupReply, StatusReply,
    TimelineReply, VmView, VolumeView, WitnessRequest, source::Source,
};

/// The result of a [`Service`] method.
pub type ServiceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// All operations that people can request from a node. Methods that only read work without a quorum. An implementation does
/// not check the session: the server does, as the route table says, and the pages do for themselves.
pub trait Service: Send + Sync + 'static {
    /// The current state; `details` only for a request with a session.
    fn status(&self, details: bool) -> StatusReply;
    /// The session of this token, if it is valid.
    fn session<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, Session>;
    /// Begins a session. Wrong passwords are limited for each source separately.
    fn login<'a>(&'a self, source: Source, password: &'a str) -> ServiceFuture<'a, LoginReply>;
    /// Ends a session; unknown tokens are ignored.
    fn logout<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, ()>;
    /// The state of setup; on a blank node with the questions, disks and ports.
    fn setup(&self) -> ServiceFuture<'_, SetupReply>;
    /// Disks, ports and offers that the wizard's checks compare answers with.
    fn surroundings(&self) -> ServiceFuture<'_, Surroundings>;
    /// Checks the answers and begins setup as a task; returns at once. Refused unless the node is blank.
    fn begin_setup(&self, answers: Answers) -> ServiceFuture<'_, SetupReply>;
    /// First nodes that wait for their second node.
    fn offers(&self) -> ServiceFuture<'_, Vec<OfferView>>;
    /// The events of this node whose number is `since` or higher, oldest first.
    fn timeline(&self, since: u64) -> ServiceFuture<'_, TimelineReply>;
    /// Opens a pairing code, with which the second node joins. Refused unless this node leads the pair, and once both nodes
    /// are in sync.
    fn pairing_code(&self) -> ServiceFuture<'_, PairingCodeReply>;
    /// Enrols the pair at a witness with the witness's one-time code.
    fn witness(&self, request: WitnessRequest) -> ServiceFuture<'_, ()>;
    /// Stops feeding the watchdog, to prove that it resets this node: the node restarts. Refused while VMs run here.
    fn prove_watchdog(&self) -> ServiceFuture<'_, ()>;
    fn volumes(&self) -> ServiceFuture<'_, Vec<VolumeView>>;
    /// Creates a volume; it reads as zeros.
    fn create_volume(&self, request: CreateVolume) -> ServiceFuture<'_, VolumeView>;
    /// Deletes a volume with its content.
    fn delete_volume<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
    fn vms(&self) -> ServiceFuture<'_, Vec<VmView>>;
    /// Creates a VM, and starts it unless the request says otherwise.
    fn create_vm(&self, request: CreateVm) -> ServiceFuture<'_, VmView>;
    /// Deletes a stopped VM; its volumes stay.
    fn delete_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
    /// Sets the VM's intent to running.
    fn start_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
    /// Sets the VM's intent to stopped: its guest is asked to shut down, and after the pair's grace time its process is killed.
    fn stop_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
    /// Kills the VM's process at once, like a power cut; sets its intent to stopped.
    fn kill_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
}
