//! What the pages and the HTTP routes ask of a node. `dyad-node` implements it; tests of the pages bring their own.

use std::{future::Future, pin::Pin};

use dyad_wizard::{Answers, Surroundings};

use crate::{
    ApiError, CreateVm, CreateVolume, LoginReply, OfferView, PairingCodeReply, Session, SetupReply, StatusReply,
    TimelineReply, VmView, VolumeView, WitnessRequest, source::Source,
};

/// A future answer: the value, or the sentence that says why not.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Everything a person may ask of a node. Reads work without quorum. Callers check the session before anything but
/// status, setup, offers and login.
pub trait Service: Send + Sync + 'static {
    /// The state of this moment; `details` only for those who are logged in.
    fn status(&self, details: bool) -> StatusReply;
    /// The session of this token, if it is valid.
    fn session<'a>(&'a self, token: &'a str) -> Answer<'a, Session>;
    /// Begins a session. Wrong passwords are limited for each source by itself.
    fn login<'a>(&'a self, source: Source, password: &'a str) -> Answer<'a, LoginReply>;
    /// Ends a session; unknown tokens are ignored.
    fn logout<'a>(&'a self, token: &'a str) -> Answer<'a, ()>;
    /// How far setup is.
    fn setup(&self) -> Answer<'_, SetupReply>;
    /// What the wizard's checks compare answers with.
    fn surroundings(&self) -> Answer<'_, Surroundings>;
    /// Checks the answers and begins setup as a task; returns at once. Refused unless the node is blank.
    fn begin_setup(&self, answers: Answers) -> Answer<'_, SetupReply>;
    /// First nodes heard.
    fn offers(&self) -> Answer<'_, Vec<OfferView>>;
    /// What happened since this event number.
    fn timeline(&self, since: u64) -> Answer<'_, TimelineReply>;
    /// Opens the pairing code.
    fn pairing_code(&self) -> Answer<'_, PairingCodeReply>;
    /// Enrols at a witness.
    fn witness(&self, request: WitnessRequest) -> Answer<'_, ()>;
    /// Proves that the watchdog resets this node, which restarts. Refused while VMs run here.
    fn prove_watchdog(&self) -> Answer<'_, ()>;
    /// Every volume.
    fn volumes(&self) -> Answer<'_, Vec<VolumeView>>;
    /// Makes a volume.
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, VolumeView>;
    /// Deletes a volume with all it holds.
    fn delete_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
    /// Every VM.
    fn vms(&self) -> Answer<'_, Vec<VmView>>;
    /// Makes a VM.
    fn create_vm(&self, request: CreateVm) -> Answer<'_, VmView>;
    /// Deletes a stopped VM; its volumes stay.
    fn delete_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
    /// Wants the VM running.
    fn start_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
    /// Wants the VM shut down: its guest is asked, and after the pair's grace time it is stopped hard.
    fn stop_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
    /// Stops the VM at once, like pulling its plug.
    fn kill_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
}
