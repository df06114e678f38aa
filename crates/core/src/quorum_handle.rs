//! Inputs of the quorum thread, and the handle that sends them and wakes it.

use crate::quorum_update::WitnessHealth;
use dyad_link::beacon::Waker;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the quorum thread receives.
#[expect(clippy::large_enum_variant, reason = "inputs are few and short-lived")]
#[derive(Debug)]
pub enum QuorumInput {
    /// An event for the quorum machine.
    Quorum(dyad_quorum::Event),
    /// The outcome of a request to the witness.
    Witness(WitnessHealth),
    /// `true`: the watchdog is not fed any more, to prove that it resets this node. `false`: it is fed again.
    StopFeeding(bool),
    /// End the thread: the watchdog is no longer fed.
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

    /// Delivers any input. The thread lives as long as the process.
    pub fn send(&self, input: QuorumInput) {
        let _ = self.inputs.send(input);
        self.waker.wake();
    }
}

/// Handle and receiving end for a quorum thread that does not run yet and will use the beacon of this waker.
pub fn queue(waker: Waker) -> (QuorumHandle, Receiver<QuorumInput>) {
    let (inputs, receiver) = channel();
    (QuorumHandle { inputs, waker }, receiver)
}
