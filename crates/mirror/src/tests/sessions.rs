//! Events of a session that has ended.

use crate::*;

fn handle(mirror: &mut Mirror, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    mirror.handle(BootTime::ZERO, event, &mut actions);
    actions
}

/// The network task may report the end of a session late, and messages that it had received before.
#[test]
fn what_comes_late_of_an_ended_session_does_not_reach_the_next_one() {
    let inventory = Inventory { volumes: Vec::new(), dirty: Vec::new() };
    let mut mirror = Mirror::new(BootTime::ZERO, Tuning::default(), inventory);
    let view = View { epoch: Epoch(1), me: true, peer: true, ack_peer: true, lead: true };
    handle(&mut mirror, Event::View(view));
    for session in [Session(1), Session(2)] {
        handle(&mut mirror, Event::PeerUp { session });
    }
    // In a handshake this message ends its session.
    let message = PeerMessage { number: 1, epoch: Epoch(1), body: Body::Copied };
    let late = [Event::Peer { session: Session(1), message: message.clone() }, Event::PeerDown { session: Session(1) }];
    for event in late {
        assert_eq!(handle(&mut mirror, event), []);
        assert_eq!(mirror.phase(), Phase::Handshake);
    }
    let actions = handle(&mut mirror, Event::Peer { session: Session(2), message });
    assert!(actions.contains(&Action::Disconnect(Reason::Protocol)), "{actions:?}");
}
