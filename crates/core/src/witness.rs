//! The witness as this node uses it: one task that asks, one function that enrols.

use crate::clock;
use crate::conductor::{ConductorHandle, Input, WitnessHealth};
use crate::contacts::Enrolled;
use crate::identity::{Identity, Witness};
use dyad_control::Reply;
use dyad_link::tls;
use dyad_quorum::{Event, NodeId, WitnessAsk, WitnessReply};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

enum Order {
    Use(u128, tls::Identity, Box<Witness>),
    AddKey(NodeId, String),
}

/// The way to the task.
pub struct WitnessHandle {
    asks: UnboundedSender<(u64, WitnessAsk)>,
    orders: UnboundedSender<Order>,
}

impl WitnessHandle {
    /// Starts the task; every ask is answered "unreachable" until a witness is named.
    pub fn start(conductor: ConductorHandle) -> Self {
        let (asks, receiver) = unbounded_channel();
        let (orders, order_receiver) = unbounded_channel();
        tokio::spawn(run(receiver, order_receiver, conductor));
        Self { asks, orders }
    }

    /// Where the conductor puts its asks.
    pub fn asks(&self) -> UnboundedSender<(u64, WitnessAsk)> {
        self.asks.clone()
    }

    /// From now on ask this witness.
    pub fn use_witness(&self, pair: u128, tls: tls::Identity, witness: Witness) {
        let _ = self.orders.send(Order::Use(pair, tls, Box::new(witness)));
    }

    /// The witness shall answer the holder of this key too.
    pub fn add_key(&self, node: NodeId, fingerprint: String) {
        let _ = self.orders.send(Order::AddKey(node, fingerprint));
    }
}

async fn run(
    mut asks: UnboundedReceiver<(u64, WitnessAsk)>,
    mut orders: UnboundedReceiver<Order>,
    conductor: ConductorHandle,
) {
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some((id, _)) = ask else { return };
                conductor.send(Input::Quorum(Event::Witness { id, reply: WitnessReply::Unreachable }));
                conductor.send(Input::Witness(WitnessHealth::Silent { since: Some(clock::now()) }));
            }
            order = orders.recv() => if order.is_none() { return },
        }
    }
}

/// Enrols at the witness.
pub async fn enrol(_: Identity, _: tls::Identity, _: String, _: String) -> Result<Enrolled, Reply> {
    Err(Reply::refused("x", "x"))
}
