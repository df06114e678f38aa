//! The datagram on the wire: its largest form fits into one packet, its bytes do not change between versions, and
//! random bytes cause no panic.

use dyad_quorum::{
    Acceptor, AcceptorReply, Ballot, BootTime, Config, Datagram, DatagramBody, Echo, Exception, Health, Heartbeat,
    Learn, MAX_EXCEPTIONS, Members, ReplyBody, TryDecide, VoteRefusal, WitnessId, WitnessRequest, WitnessRequestId,
};
use dyad_types::{Epoch, NodeId, VolumeId};
use proptest::prelude::*;

/// Maximum size in bytes: a UDP payload of 1200 bytes passes every path of the internet; 64 bytes are for
/// authentication.
const MAX_DATAGRAM_BYTES: usize = 1200 - 64;

/// A volume id that takes three bytes. Ids are counted from 1, so larger ones are not expected.
const THREE_BYTE_ID: VolumeId = VolumeId(2_000_000);

/// A configuration in which each field has its largest encoding; the exceptions name this volume.
fn largest_config(volume: VolumeId) -> Config {
    Config {
        epoch: Epoch(u64::MAX),
        members: Members::Both,
        tie: Acceptor::W,
        lead: NodeId::B,
        incarnations: [u64::MAX; 3],
        witness: WitnessId(u128::MAX),
        exceptions: vec![Exception { volume, holder: NodeId::B }; MAX_EXCEPTIONS],
        lineage: u64::MAX,
    }
}

fn datagram(body: DatagramBody) -> Datagram {
    Datagram {
        pair: u128::MAX,
        from: NodeId::B,
        boot: u128::MAX,
        started: BootTime(u64::MAX),
        incarnation: u64::MAX,
        body,
    }
}

fn bodies(volume: VolumeId) -> Vec<DatagramBody> {
    let ballot = Ballot { round: u64::MAX, node: NodeId::B };
    let request = TryDecide {
        pair: u128::MAX,
        sender: NodeId::B,
        incarnation: u64::MAX,
        base: largest_config(volume),
        ballot,
        accepted: Some((ballot, largest_config(volume))),
        want: largest_config(volume),
        witness_changes: u64::MAX,
    };
    let reply = AcceptorReply {
        from: Acceptor::W,
        incarnation: u64::MAX,
        witness: WitnessId(u128::MAX),
        witness_changes: u64::MAX,
        body: ReplyBody::Promise(ballot, Some((ballot, largest_config(volume)))),
    };
    let echo = Echo { boot: u128::MAX, started: BootTime(u64::MAX), sent: BootTime(u64::MAX) };
    let health = Health {
        healthy: true,
        register_writable: true,
        leaving: true,
        watchdog_proven: true,
        witness_lost_ms: u32::MAX,
    };
    let heartbeat = Heartbeat {
        number: u64::MAX,
        sent: BootTime(u64::MAX),
        base: largest_config(volume),
        heard: Some(echo),
        health,
        witness_changes: u64::MAX,
        storage_answers: true,
    };
    let learn = Learn { pair: u128::MAX, sender: NodeId::B, base: largest_config(volume), witness_changes: u64::MAX };
    vec![
        DatagramBody::Heartbeat(heartbeat),
        DatagramBody::Grant(echo),
        DatagramBody::TryDecide(request.clone()),
        DatagramBody::Reply(reply.clone()),
        DatagramBody::Relay(WitnessRequestId(u64::MAX), WitnessRequest::TryDecide(request)),
        DatagramBody::Relay(WitnessRequestId(u64::MAX), WitnessRequest::Learn(learn)),
        DatagramBody::RelayReply(WitnessRequestId(u64::MAX), reply),
    ]
}

#[test]
fn every_datagram_fits_into_one_packet_and_comes_back_the_same() {
    // With the largest volume ids a datagram still fits into an Ethernet frame.
    let cases = bodies(THREE_BYTE_ID)
        .into_iter()
        .map(|body| (body, MAX_DATAGRAM_BYTES))
        .chain(bodies(VolumeId(u64::MAX)).into_iter().map(|body| (body, 1400)));
    for (body, max_bytes) in cases {
        let sent = datagram(body);
        let bytes = postcard::to_allocvec(&sent).expect("encodes");
        assert!(bytes.len() <= max_bytes, "{} bytes: {sent:?}", bytes.len());
        assert_eq!(postcard::from_bytes::<Datagram>(&bytes).expect("decodes"), sent);
    }
}

/// A configuration of a few bytes.
fn small_config(epoch: Epoch) -> Config {
    Config {
        epoch,
        members: Members::Both,
        tie: Acceptor::W,
        lead: NodeId::A,
        incarnations: [11, 12, 13],
        witness: WitnessId(14),
        exceptions: vec![Exception { volume: VolumeId(15), holder: NodeId::B }],
        lineage: 16,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of each message are those of `docs/quorum.md`: an older node and an older witness read them.
#[test]
fn the_bytes_of_each_message_stay_the_same() {
    let ballot = Ballot { round: 5, node: NodeId::B };
    let request = TryDecide {
        pair: 1,
        sender: NodeId::A,
        incarnation: 11,
        base: small_config(Epoch(3)),
        ballot,
        accepted: Some((ballot, small_config(Epoch(4)))),
        want: small_config(Epoch(4)),
        witness_changes: 6,
    };
    let learn = Learn { pair: 1, sender: NodeId::B, base: small_config(Epoch(3)), witness_changes: 6 };
    let reply =
        |body| AcceptorReply { from: Acceptor::W, incarnation: 13, witness: WitnessId(14), witness_changes: 6, body };
    let echo = Echo { boot: 7, started: BootTime(8), sent: BootTime(9) };
    let health =
        Health { healthy: true, register_writable: false, leaving: true, watchdog_proven: false, witness_lost_ms: 300 };
    let heartbeat = Heartbeat {
        number: 1,
        sent: BootTime(2),
        base: small_config(Epoch(3)),
        heard: Some(echo),
        health,
        witness_changes: 6,
        storage_answers: false,
    };
    let bodies = [
        DatagramBody::Heartbeat(heartbeat),
        DatagramBody::Grant(echo),
        DatagramBody::TryDecide(request.clone()),
        DatagramBody::Reply(reply(ReplyBody::Accepted(ballot, small_config(Epoch(4))))),
        DatagramBody::Reply(reply(ReplyBody::Promise(ballot, None))),
        DatagramBody::Reply(reply(ReplyBody::Nack(ballot, Ballot { round: 6, node: NodeId::A }))),
        DatagramBody::Reply(reply(ReplyBody::Newer(small_config(Epoch(4))))),
        DatagramBody::Relay(WitnessRequestId(17), WitnessRequest::Learn(learn)),
        DatagramBody::Relay(WitnessRequestId(17), WitnessRequest::TryDecide(request)),
        DatagramBody::RelayReply(WitnessRequestId(17), reply(ReplyBody::Base(small_config(Epoch(3))))),
        DatagramBody::RelayReply(WitnessRequestId(17), reply(ReplyBody::Refused(VoteRefusal::NotAVoter))),
        DatagramBody::RelayReply(WitnessRequestId(17), reply(ReplyBody::Refused(VoteRefusal::Conflict))),
    ];
    let expected = [
        "010007080b000102030202000b0c0d0e010f01100107080901000100ac020600",
        "010007080b01070809",
        "010007080b0201000b030202000b0c0d0e010f01100501010501040202000b0c0d0e010f0110040202000b0c0d0e010f0110\
         06",
        "010007080b03020d0e06000501040202000b0c0d0e010f0110",
        "010007080b03020d0e0601050100",
        "010007080b03020d0e060205010600",
        "010007080b03020d0e0603040202000b0c0d0e010f0110",
        "010007080b0411000101030202000b0c0d0e010f011006",
        "010007080b04110101000b030202000b0c0d0e010f01100501010501040202000b0c0d0e010f0110040202000b0c0d0e010f\
         011006",
        "010007080b0511020d0e0604030202000b0c0d0e010f0110",
        "010007080b0511020d0e060500",
        "010007080b0511020d0e060504",
    ];
    for (body, expected) in bodies.into_iter().zip(expected) {
        let sent = Datagram { pair: 1, from: NodeId::A, boot: 7, started: BootTime(8), incarnation: 11, body };
        let bytes = postcard::to_allocvec(&sent).expect("encodes");
        assert_eq!(hex(&bytes), expected, "{sent:?}");
    }
}

/// An older version sends heartbeats without the last byte: its pool is taken to answer.
#[test]
fn a_heartbeat_of_an_older_version_is_read() {
    let bytes = "010007080b000102030202000b0c0d0e010f01100107080901000100ac0206";
    let bytes: Vec<u8> =
        (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
    let datagram = postcard::from_bytes::<Datagram>(&bytes).expect("decodes");
    let DatagramBody::Heartbeat(heartbeat) = datagram.body else { panic!("a heartbeat") };
    assert!(heartbeat.storage_answers);
    assert_eq!(heartbeat.witness_changes, 6);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_decode_to_a_datagram_that_can_be_encoded(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(datagram) = postcard::from_bytes::<Datagram>(&bytes) {
            prop_assert!(postcard::to_allocvec(&datagram).is_ok());
        }
    }
}
