//! Guest writes in flight are bounded.

use crate::*;

const SIZE: u64 = 1 << 20;

/// The store commands after one event.
fn commands(mirror: &mut Mirror, event: Event) -> Vec<(StoreOp, StoreCommand)> {
    let mut actions = Vec::new();
    mirror.handle(BootTime::ZERO, event, &mut actions);
    let store = |action| match action {
        Action::Store { op, command } => Some((op, command)),
        _ => None,
    };
    actions.into_iter().filter_map(store).collect()
}

#[test]
fn a_write_beyond_the_bound_waits_for_an_earlier_one() {
    let stamp = Stamp { epoch: Epoch(1), seq: Seq(0) };
    let inventory =
        Inventory { volumes: vec![VolumeInfo { id: VolumeId(1), size: SIZE, last: stamp }], dirty: Vec::new() };
    let mut mirror = Mirror::new(BootTime::ZERO, Tuning { flight: 2 * MIN_WEIGHT, ..Tuning::default() }, inventory);
    let view = View { epoch: Epoch(1), me: true, peer: false, ack_peer: false, lead: true };
    let mut queue = commands(&mut mirror, Event::View(view));
    queue.extend(commands(&mut mirror, Event::Writer { volume: VolumeId(1), writer: Writer::Me }));
    queue.extend(commands(&mut mirror, Event::Resume));
    for req in 1..=3 {
        // Far from each other, so that only the limit can make a write wait.
        let op = GuestOp::Write { block: BlockIndex(req * 64), data: vec![1; BLOCK].into() };
        queue.extend(commands(&mut mirror, Event::Guest { req: RequestId(req), volume: VolumeId(1), op }));
    }
    let mut writes = Vec::new();
    while let Some((op, command)) = queue.pop() {
        if matches!(command, StoreCommand::Write { .. }) {
            writes.push(op);
        } else {
            queue.extend(commands(&mut mirror, Event::Stored { op, result: Ok(StoreOutput::Done) }));
        }
    }
    assert_eq!(writes.len(), 2, "two fit, the third waits");
    let next = commands(&mut mirror, Event::Stored { op: writes[0], result: Ok(StoreOutput::Done) });
    assert!(next.iter().any(|(_, command)| matches!(command, StoreCommand::Write { .. })), "{next:?}");
}
