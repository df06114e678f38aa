//! Inputs of the quorum thread, and the handle that sends them and wakes it.

use crate::quorum_update::WitnessHealth;
use dyad_link::beacon::Waker;
use std::sync::mpsc::{Receiver, Sender, channel};

/// One input of the quorum thread.
#[expect(clippy::large_enum_variant, reason = "inputs are few and short-lived")]
#[derive(Debug)]
pub enum QuorumInput {
    /// An event for the quorum machine.
    Quorum(dyad_quorum::Event),
    /// The outcome of a request to the witness.
    Witness(WitnessHealth),
    /// `true`: the watchdog is not fed any more, to prove that it resets this node. `false`: it is fed again.
    StopFeeding(bool),
    /// End the thread. The watchdog is no longer fed then.
    Stop,
}

/// Sends to the quorum thread.
#[derive(Clone)]
pub struct QuorumHandle {
    inputs: Sender<QuorumInput>,
    waker: Waker,
}

impl QuorumHandle {
    /// Gives the quorum machine an event.
    pub fn tell(&self, event: dyad_quorum::Event) {
        self.send(QuorumInput::Quorum(event));
    }

    /// Appends an input to the queue and wakes the thread. After the end of the thread it does nothing.
    pub fn send(&self, input: QuorumInput) {
        let _ = self.inputs.send(input);
        self.waker.wake();
    }
}

/// The queue of inputs: the sending handle and the receiving end. `waker` must be that of the beacon on which the quorum
/// thread will wait.
pub fn queue(waker: Waker) -> (QuorumHandle, Receiver<QuorumInput>) {
    let (inputs, receiver) = channel();
    (QuorumHandle { inputs, waker }, receiver)
}
