//! A request from before a volume was closed never runs after the volume is opened again.

use crate::*;

const SIZE: u64 = 1 << 20;
const VIEW: View = View { epoch: Epoch(1), me: true, peer: false, ack_peer: false, lead: true };

fn handle(mirror: &mut Mirror, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    mirror.handle(BootTime::ZERO, event, &mut actions);
    actions
}

/// A node that is the only member, with one volume.
fn alone() -> Mirror {
    let stamp = Stamp { epoch: Epoch(1), seq: Seq(0) };
    let inventory =
        Inventory { volumes: vec![VolumeInfo { id: VolumeId(1), size: SIZE, last: stamp }], dirty: Vec::new() };
    let mut mirror = Mirror::new(BootTime::ZERO, Tuning::default(), inventory);
    handle(&mut mirror, Event::View(VIEW));
    handle(&mut mirror, Event::Resume);
    mirror
}

fn ask(mirror: &mut Mirror, req: u64, op: GuestOp) -> Vec<Action> {
    handle(mirror, Event::Guest { req: RequestId(req), volume: VolumeId(1), op })
}

fn closed(actions: &[Action], wanted: u64) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Complete { req, result: Err(GuestError::Closed) } if *req == RequestId(wanted)))
}

#[test]
fn a_request_that_comes_after_the_close_is_refused() {
    let mut mirror = alone();
    handle(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::Me });
    handle(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::Peer });
    let ops = [
        GuestOp::Write { block: BlockIndex(0), data: vec![1; BLOCK].into() },
        GuestOp::Read { block: BlockIndex(0), count: 1 },
        GuestOp::Discard { block: BlockIndex(0), count: 1 },
        GuestOp::Flush,
    ];
    for (req, op) in (1..).zip(ops) {
        assert!(closed(&ask(&mut mirror, req, op.clone()), req), "{op:?}");
    }
    assert_eq!(mirror.open_requests(), 0);
    // None of these requests runs when this node writes the volume again.
    let later = handle(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::Me });
    assert!(!later.iter().any(|action| matches!(action, Action::Store { .. })), "{later:?}");
}

#[test]
fn a_waiting_request_ends_with_the_right_to_write() {
    let mut mirror = alone();
    handle(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::Me });
    handle(&mut mirror, Event::Hold);
    assert!(
        !closed(&ask(&mut mirror, 7, GuestOp::Read { block: BlockIndex(0), count: 1 }), 7),
        "it waits for the lease"
    );
    assert!(closed(&handle(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::None }), 7));
}
