//! Alarms that the state of the pools and of the document raises.

use super::*;
use dyad_control::AlarmCode;
use dyad_mirror::StoreError;

fn shown_alarms(fixture: &mut CoreFixture) -> Vec<(AlarmCode, String)> {
    fixture.state.settle();
    fixture.state.report.shown().alarms.into_iter().map(|alarm| (alarm.code, alarm.sentence)).collect()
}

/// The store's next write, after all commands before it were answered; the mirror's time passes until it comes.
fn next_write(fixture: &mut CoreFixture) -> dyad_mirror::StoreOp {
    for _ in 0..10_000 {
        match fixture.store.next() {
            Some((op, StoreCommand::Write { .. })) => return op,
            Some((op, StoreCommand::Read { .. })) => {
                let data = StoreOutput::Data(vec![0; 4096].into());
                fixture.state.apply(Event::Store(StoreDone { op, result: Ok(data) }));
            }
            Some((op, _)) => fixture.state.apply(Event::Store(StoreDone { op, result: Ok(StoreOutput::Done) })),
            None => fixture.state.feed_mirror(dyad_mirror::Event::Tick),
        }
    }
    panic!("the mirror sent no write to the store");
}

#[test]
fn a_full_pool_is_an_alarm_until_it_has_room_again() {
    let mut fixture = clocks::with_short_clocks(dyad_quorum::Members::OnlyA);
    let op = dyad_mirror::GuestOp::Write { block: dyad_types::BlockIndex(0), data: vec![1; 4096].into() };
    fixture.state.feed_mirror(dyad_mirror::Event::Guest { req: dyad_mirror::RequestId(2), volume: VolumeId(0), op });
    let op = next_write(&mut fixture);
    assert_eq!(shown_alarms(&mut fixture), []);
    fixture.state.apply(Event::Store(StoreDone { op, result: Err(StoreError::NoSpace) }));
    let alarms = shown_alarms(&mut fixture);
    assert_eq!(alarms[0].0, AlarmCode::PoolFull);
    assert!(alarms[0].1.starts_with("The pool of this node is full, so guests that write wait"), "{}", alarms[0].1);
    // The alarm does not end while a repeated write is under way.
    for _ in 0..2 {
        let op = next_write(&mut fixture);
        fixture.state.feed_mirror(dyad_mirror::Event::Tick);
        assert_eq!(shown_alarms(&mut fixture)[0].0, AlarmCode::PoolFull);
        fixture.state.apply(Event::Store(StoreDone { op, result: Err(StoreError::NoSpace) }));
        assert_eq!(shown_alarms(&mut fixture)[0].0, AlarmCode::PoolFull);
    }
    let op = next_write(&mut fixture);
    fixture.state.apply(Event::Store(StoreDone { op, result: Ok(StoreOutput::Done) }));
    assert_eq!(shown_alarms(&mut fixture), []);
}

#[test]
fn full_pools_are_named() {
    let text = |pools: &[bool]| sentences::full_pools_text(pools.iter().copied());
    assert!(text(&[false]).starts_with("The pool of the other node is full"));
    assert!(text(&[true, false]).starts_with("The pool of this node and of the other node is full"));
}

#[test]
fn vms_that_one_node_cannot_run_are_an_alarm_until_they_are_stopped() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running), ("mail", NodeId::B, Intent::Running)]);
    assert_eq!(shown_alarms(&mut fixture), []);
    let mut document = document(&[("web", NodeId::A, Intent::Running), ("mail", NodeId::B, Intent::Running)]);
    let needed_mib = document.running_memory_mib();
    for (node, usable_memory_mib) in [(NodeId::A, needed_mib + 1000), (NodeId::B, needed_mib)] {
        document.nodes.get_mut(&node).unwrap().usable_memory_mib = usable_memory_mib;
    }
    let read = |document: &Document| DocumentRead { document: document.clone(), term: MembershipTerm(0) };
    fixture.state.apply(Event::DocumentRead(read(&document)));
    assert_eq!(shown_alarms(&mut fixture), [], "both fit on either node");
    document.generation += 1;
    document.nodes.get_mut(&NodeId::B).unwrap().usable_memory_mib = needed_mib - 1;
    fixture.state.apply(Event::DocumentRead(read(&document)));
    let alarms = shown_alarms(&mut fixture);
    assert_eq!(alarms[0].0, AlarmCode::VmsDoNotFit);
    assert!(alarms[0].1.contains(&format!("need {needed_mib} MiB, and one node has {} MiB", needed_mib - 1)));
    document.generation += 1;
    document.vms.get_mut("mail").unwrap().config.intent = Intent::Stopped;
    fixture.state.apply(Event::DocumentRead(read(&document)));
    assert_eq!(shown_alarms(&mut fixture), []);
}
