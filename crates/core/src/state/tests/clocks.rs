//! What the quorum machine is told of requests that wait for the peer, and of a pool that does not answer.

use super::*;

/// Node A with a mirror whose T_io and retries take 10 ns, of which each tick counts 1 ns, and this configuration.
pub(super) fn with_short_clocks(members: dyad_quorum::Members) -> CoreFixture {
    let mut fixture = CoreFixture::new(&[]);
    let volumes = vec![VolumeInfo { id: VolumeId(0), size: 1 << 20, last: Stamp::default() }];
    let tuning = Tuning { stuck: 10, retry: 10, ..Tuning::default() };
    fixture.state.replication.mirror =
        Mirror::new(crate::clock::now(), tuning, Inventory { volumes, dirty: Vec::new() });
    fixture.configure(|config| config.members = members);
    fixture.state.apply(Event::Quorum(QuorumUpdate::AckSet(members, 0)));
    fixture.state.feed_mirror(dyad_mirror::Event::Resume);
    fixture.state.feed_mirror(dyad_mirror::Event::Writer { volume: VolumeId(0), writer: dyad_mirror::Writer::Me });
    let op = dyad_mirror::GuestOp::Read { block: dyad_types::BlockIndex(0), count: 1 };
    fixture.state.feed_mirror(dyad_mirror::Event::Guest { req: dyad_mirror::RequestId(1), volume: VolumeId(0), op });
    fixture.quorum_inputs();
    fixture
}

/// The events for the quorum machine after 15 ticks of the mirror.
fn events_of_ticks(fixture: &mut CoreFixture) -> Vec<dyad_quorum::Event> {
    (0..15).for_each(|_| fixture.state.feed_mirror(dyad_mirror::Event::Tick));
    let event = |input| if let QuorumInput::Quorum(event) = input { Some(event) } else { None };
    fixture.quorum_inputs().into_iter().filter_map(event).collect()
}

#[test]
fn the_quorum_machine_is_told_that_the_pool_does_not_answer_and_the_alarm_names_it() {
    let mut fixture = with_short_clocks(dyad_quorum::Members::OnlyA);
    assert_eq!(events_of_ticks(&mut fixture), [dyad_quorum::Event::StorageStuck]);
    assert_eq!(events_of_ticks(&mut fixture), []);
    fixture.state.apply(Event::Quorum(QuorumUpdate::Alarm(dyad_quorum::Alarm::StorageStuck)));
    fixture.state.settle();
    let alarms = fixture.state.report.shown().alarms;
    assert_eq!(alarms[0].code, dyad_control::AlarmCode::StorageStuck);
    assert!(alarms[0].sentence.starts_with("A pool disk of this node does not answer"), "{}", alarms[0].sentence);
    let (op, _) = std::iter::from_fn(|| fixture.store.next()).last().unwrap();
    let data = StoreOutput::Data(vec![0; 4096].into());
    fixture.state.apply(Event::Store(StoreDone { op, result: Ok(data) }));
    assert_eq!(events_of_ticks(&mut fixture), [dyad_quorum::Event::StorageAnswers]);
}

/// A full journal on a slow disk: commands wait for a checkpoint, whose steps the disk completes.
#[test]
fn the_quorum_machine_is_told_nothing_while_the_pool_makes_progress() {
    let mut fixture = with_short_clocks(dyad_quorum::Members::OnlyA);
    let (op, _) = std::iter::from_fn(|| fixture.store.next()).last().unwrap();
    for steps in 1..20 {
        (0..8).for_each(|_| fixture.state.feed_mirror(dyad_mirror::Event::Tick));
        fixture.state.apply(Event::StoreProgress { op, steps });
    }
    assert!(fixture.quorum_inputs().is_empty());
    assert_eq!(events_of_ticks(&mut fixture), [dyad_quorum::Event::StorageStuck], "without progress");
}

/// The data session never comes up although both nodes are members.
#[test]
fn the_quorum_machine_is_told_that_requests_wait_for_a_peer_without_a_session() {
    let mut fixture = with_short_clocks(dyad_quorum::Members::Both);
    assert_eq!(events_of_ticks(&mut fixture), [dyad_quorum::Event::PeerStuck], "after 10 ticks");
    let repeated = [dyad_quorum::Event::PeerStuck, dyad_quorum::Event::PeerStuck];
    assert_eq!(events_of_ticks(&mut fixture), repeated, "after 20 and 30 ticks");
}
