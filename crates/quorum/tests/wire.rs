//! The datagram on the wire: small enough for one packet at its largest, and noise does not decode into error.

use dyad_quorum::{
    Acceptor, Answer, Ballot, Body, Config, Datagram, Echo, Exception, Health, Heartbeat, Learn, MAX_EXCEPTIONS,
    Members, TryDecide, Verdict, WitnessAsk, WitnessId,
};
use dyad_types::NodeId;
use proptest::prelude::*;

/// UDP payload that fits into every path of the internet, less what authentication adds.
const ROOM: usize = 1200 - 64;

/// Volume ids are counted up from 1, so three bytes each are plenty.
const USUAL: u64 = 2_000_000;

/// A configuration as large as it can be.
fn largest(volume: u64) -> Config {
    Config {
        epoch: u64::MAX,
        members: Members::Both,
        tie: Acceptor::W,
        lead: NodeId::B,
        incarnations: [u64::MAX; 3],
        witness: WitnessId(u128::MAX),
        exceptions: vec![Exception { volume, holder: NodeId::B }; MAX_EXCEPTIONS],
        lineage: u64::MAX,
    }
}

fn datagram(body: Body) -> Datagram {
    Datagram { pair: u128::MAX, from: NodeId::B, boot: u128::MAX, started: u64::MAX, incarnation: u64::MAX, body }
}

fn bodies(volume: u64) -> Vec<Body> {
    let ballot = Ballot { round: u64::MAX, node: NodeId::B };
    let ask = TryDecide {
        pair: u128::MAX,
        sender: NodeId::B,
        incarnation: u64::MAX,
        base: largest(volume),
        ballot,
        best: Some((ballot, largest(volume))),
        want: largest(volume),
        seen: u64::MAX,
    };
    let answer = Answer {
        from: Acceptor::W,
        incarnation: u64::MAX,
        witness: WitnessId(u128::MAX),
        mark: u64::MAX,
        verdict: Verdict::Promise(ballot, Some((ballot, largest(volume)))),
    };
    let echo = Echo { boot: u128::MAX, started: u64::MAX, sent: u64::MAX };
    let health = Health { well: true, register: true, leaving: true, watchdog: true, witness_lost_ms: u32::MAX };
    let heartbeat =
        Heartbeat { seq: u64::MAX, sent: u64::MAX, base: largest(volume), heard: Some(echo), health, mark: u64::MAX };
    let learn = Learn { pair: u128::MAX, sender: NodeId::B, base: largest(volume), seen: u64::MAX };
    vec![
        Body::Heartbeat(heartbeat),
        Body::Grant(echo),
        Body::Ask(ask.clone()),
        Body::Answer(answer.clone()),
        Body::Relay(u64::MAX, WitnessAsk::TryDecide(ask)),
        Body::Relay(u64::MAX, WitnessAsk::Learn(learn)),
        Body::Relayed(u64::MAX, answer),
    ]
}

#[test]
fn every_datagram_fits_into_one_packet_and_comes_back_the_same() {
    // With volume ids beyond any count it still fits into an Ethernet frame.
    let cases =
        bodies(USUAL).into_iter().map(|body| (body, ROOM)).chain(bodies(u64::MAX).into_iter().map(|body| (body, 1400)));
    for (body, room) in cases {
        let sent = datagram(body);
        let bytes = postcard::to_allocvec(&sent).expect("encodes");
        assert!(bytes.len() <= room, "{} bytes: {sent:?}", bytes.len());
        assert_eq!(postcard::from_bytes::<Datagram>(&bytes).expect("decodes"), sent);
    }
}

proptest! {
    #[test]
    fn noise_decodes_to_nothing_or_to_something_that_can_be_sent_again(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(datagram) = postcard::from_bytes::<Datagram>(&bytes) {
            prop_assert!(postcard::to_allocvec(&datagram).is_ok());
        }
    }
}
