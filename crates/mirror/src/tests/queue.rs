//! The work of one event does not grow with the number of queued requests.

use crate::*;
use std::collections::BTreeSet;

/// Four VMs with eight disks of a queue of 1,024 requests each.
const QUEUED: u64 = 32_768;
const VOLUME: VolumeId = VolumeId(1);

fn handle(mirror: &mut Mirror, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    mirror.handle(BootTime::ZERO, event, &mut actions);
    actions
}

/// A mirror with this view that writes volume 1, which is large enough for a write to each of its first extents.
fn mirror(view: View, tuning: Tuning) -> Mirror {
    let info = VolumeInfo { id: VOLUME, size: QUEUED * EXTENT_BYTES, last: Stamp::default() };
    let mut mirror = Mirror::new(BootTime::ZERO, tuning, Inventory { volumes: vec![info], dirty: Vec::new() });
    handle(&mut mirror, Event::View(view));
    handle(&mut mirror, Event::Writer { volume: VOLUME, writer: Writer::Me });
    mirror
}

const ALONE: View = View { epoch: Epoch(1), me: true, peer: false, ack_peer: false, lead: true };
const BOTH: View = View { peer: true, ack_peer: true, ..ALONE };

/// A write of one block of the extent with the number of the request.
fn write(req: u64) -> Event {
    let op = GuestOp::Write { block: BlockIndex(req * EXTENT_BLOCKS), data: vec![1; BLOCK].into() };
    Event::Guest { req: RequestId(req), volume: VOLUME, op }
}

/// The number of queued requests that an event tries to start.
fn tried(mirror: &mut Mirror, event: Event) -> u64 {
    let before = mirror.tickets.queued.tried;
    handle(mirror, event);
    mirror.tickets.queued.tried - before
}

#[test]
fn an_event_tries_no_request_while_all_wait_for_the_peer() {
    let mut mirror = mirror(BOTH, Tuning::default());
    for req in 0..QUEUED {
        assert_eq!(tried(&mut mirror, write(req)), 0, "there is no session");
    }
    assert_eq!(mirror.open_requests() as u64, QUEUED);
    assert_eq!(tried(&mut mirror, Event::Tick), 0);
}

#[test]
fn an_event_tries_few_requests_while_the_writes_in_flight_are_at_their_limit() {
    let mut mirror = mirror(ALONE, Tuning { flight: MIN_WEIGHT, ..Tuning::default() });
    // The dirty mark of the first write is durable; the write stays in flight.
    let marks = handle(&mut mirror, write(0));
    for action in marks {
        if let Action::Store { op, .. } = action {
            handle(&mut mirror, Event::Stored { op, result: Ok(StoreOutput::Done) });
        }
    }
    for req in 1..QUEUED {
        assert!(tried(&mut mirror, write(req)) <= 1);
    }
    assert!(tried(&mut mirror, Event::Tick) <= 1);
}

/// Each of these writes waits for a dirty mark of its own. All of them end, and none is tried without bound.
#[test]
fn requests_that_wait_for_conditions_of_their_own_are_tried_in_bounded_groups() {
    let mut mirror = mirror(ALONE, Tuning::default());
    let mut commands = Vec::new();
    let mut answered = BTreeSet::new();
    let mut largest = 0;
    let mut events: Vec<Event> = (0..QUEUED).map(write).collect();
    events.reverse();
    while let Some(event) = events.pop() {
        let before = mirror.tickets.queued.tried;
        let (mut started, actions) = (0, handle(&mut mirror, event));
        for action in actions {
            match action {
                Action::Store { op, command } => {
                    started += u64::from(matches!(command, StoreCommand::Write { .. }));
                    commands.push(op);
                }
                Action::Complete { req, result } => {
                    assert_eq!(result, Ok(GuestReply::Done));
                    assert!(answered.insert(req));
                }
                _ => {}
            }
        }
        largest = largest.max(mirror.tickets.queued.tried - before - started);
        if events.is_empty() {
            events.extend(commands.drain(..).map(|op| Event::Stored { op, result: Ok(StoreOutput::Done) }));
        }
    }
    assert_eq!(answered.len() as u64, QUEUED);
    assert!(largest <= 128, "one event tried {largest} requests that could not start");
}

/// Volumes share the limit of writes in flight in the order of arrival, whatever their numbers are.
#[test]
fn the_oldest_write_starts_first_over_all_volumes() {
    let volumes = [VolumeId(1), VolumeId(2)].map(|id| VolumeInfo { id, size: EXTENT_BYTES, last: Stamp::default() });
    let dirty = volumes.map(|volume| (volume.id, ExtentSet::from_iter([ExtentIndex(0)])));
    let tuning = Tuning { flight: MIN_WEIGHT, ..Tuning::default() };
    let inventory = Inventory { volumes: volumes.to_vec(), dirty: dirty.to_vec() };
    let mut mirror = Mirror::new(BootTime::ZERO, tuning, inventory);
    handle(&mut mirror, Event::View(ALONE));
    for volume in volumes {
        handle(&mut mirror, Event::Writer { volume: volume.id, writer: Writer::Me });
    }
    let mut started = Vec::new();
    let mut note = |actions: Vec<Action>| {
        let mut last = None;
        for action in actions {
            if let Action::Store { op, command: StoreCommand::Write { volume, block, .. } } = action {
                started.push((volume.0, block.0));
                last = Some(op);
            }
        }
        last
    };
    let mut running = None;
    for (req, volume) in (0..).zip([2, 1, 2, 1]) {
        let op = GuestOp::Write { block: BlockIndex(req), data: vec![1; BLOCK].into() };
        let event = Event::Guest { req: RequestId(req), volume: VolumeId(volume), op };
        running = note(handle(&mut mirror, event)).or(running);
    }
    while let Some(op) = running {
        running = note(handle(&mut mirror, Event::Stored { op, result: Ok(StoreOutput::Done) }));
    }
    assert_eq!(started, [(2, 0), (1, 1), (2, 2), (1, 3)]);
}
