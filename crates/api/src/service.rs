//! The interface between pages or HTTP handlers and a node. `dyad-node` implements it; tests of the pages have a fake.

use std::{future::Future, pin::Pin};

use dyad_wizard::{Answers, Surroundings};

use crate::{
    ApiError, CreateVm, CreateVolume, LoginReply, OfferView, PairingCodeReply, Session, SetupReply, StatusReply,
    TimelineReply, VmView, VolumeView, WitnessRequest, source::Source,
};

/// The result of a [`Service`] method.
pub type ServiceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Everything that a person can ask of a node. Reads work without quorum. The server checks the session before it calls a
/// method, as the route table says; the pages check it themselves.
pub trait Service: Send + Sync + 'static {
    /// The current state; `details` only for a request with a session.
    fn status(&self, details: bool) -> StatusReply;
    /// The session of this token, if it is valid.
    fn session<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, Session>;
    /// Begins a session. Wrong passwords are limited for each source separately.
    fn login<'a>(&'a self, source: Source, password: &'a str) -> ServiceFuture<'a, LoginReply>;
    /// Ends a session; unknown tokens are ignored.
    fn logout<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, ()>;
    fn setup(&self) -> ServiceFuture<'_, SetupReply>;
    /// Disks, ports and offers that the wizard's checks compare answers with.
    fn surroundings(&self) -> ServiceFuture<'_, Surroundings>;
    /// Checks the answers and begins setup as a task; returns at once. Refused unless the node is blank.
    fn begin_setup(&self, answers: Answers) -> ServiceFuture<'_, SetupReply>;
    /// First nodes that wait for their second node.
    fn offers(&self) -> ServiceFuture<'_, Vec<OfferView>>;
    /// The events from this event number on.
    fn timeline(&self, since: u64) -> ServiceFuture<'_, TimelineReply>;
    fn pairing_code(&self) -> ServiceFuture<'_, PairingCodeReply>;
    fn witness(&self, request: WitnessRequest) -> ServiceFuture<'_, ()>;
    /// Proves that the watchdog resets this node, which restarts. Refused while VMs run here.
    fn prove_watchdog(&self) -> ServiceFuture<'_, ()>;
    fn volumes(&self) -> ServiceFuture<'_, Vec<VolumeView>>;
    /// Creates a volume; it reads as zeros.
    fn create_volume(&self, request: CreateVolume) -> ServiceFuture<'_, VolumeView>;
    /// Deletes a volume with its content.
    fn delete_volume<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()>;
    fn vms(&self) -> ServiceFuture<'_, Vec<VmView>>;
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
