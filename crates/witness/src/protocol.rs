//! The messages between nodes and the witness, in frames of [`dyad_link::frame`].
//!
//! A node sends requests one after the other on a connection; each is answered before the next one is read. Enrolment
//! is part of a pairing ([`dyad_link::pairing`]) instead.

use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{AcceptorReply, WitnessId, WitnessRequest};
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

/// Frame kind of a [`Request`].
pub const REQUEST: u16 = 0x0301;
/// Frame kind of a [`ReplyFrame`].
pub const REPLY: u16 = 0x0302;
/// Maximum length of a request or reply, in bytes.
pub const MAX_MESSAGE: usize = 8 << 10;
/// Maximum length of a pair's name, in bytes; a longer name is cut.
pub const MAX_NAME: usize = 64;

/// The fingerprints of the keys of a pair's nodes, by [`NodeId::index`]; `None`: not known yet.
pub type NodeKeys = [Option<Fingerprint>; 2];

/// A request of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Number of the request on its connection, repeated in the reply.
    pub id: u64,
    /// The pair whose record or keys the request concerns.
    pub pair: PairId,
    pub body: RequestBody,
}

/// The content of a [`Request`].
#[expect(clippy::large_enum_variant, reason = "a connection holds one request at a time")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// A request to the witness as acceptor: to read its record, or to vote.
    Ask(WitnessRequest),
    /// A request to enrol the key of the asking node's peer, which joined or was set up again.
    AddKey {
        /// The node to which the key belongs.
        node: NodeId,
        key: Fingerprint,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyFrame {
    /// The id of the request.
    pub id: u64,
    /// The answer, or the reason of the refusal.
    pub outcome: Result<Response, WitnessRefusal>,
}

/// The answer to an accepted request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The answer to [`RequestBody::Ask`].
    Answer(AcceptorReply),
    /// The answer to [`RequestBody::AddKey`].
    Added,
}

/// The message with which a node enrols a pair, sent inside the pairing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    pub pair: PairId,
    /// The pair's name, for `dyad-witness list`.
    pub name: String,
    /// The node that enrols the pair.
    pub node: NodeId,
    /// The keys of the nodes that are known so far, including that of `node`.
    pub keys: NodeKeys,
}

/// The answer to [`Enrol`]: witness id and incarnation, which the pair's next configuration must admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Id of the witness, for [`dyad_quorum::Config::witness`].
    pub witness: WitnessId,
    /// For the witness's entry in [`dyad_quorum::Config::incarnations`].
    pub incarnation: u64,
}

/// The reasons for which the witness refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WitnessRefusal {
    /// The pair was never enrolled here, or was removed.
    #[error("the witness does not know this pair; enrol the pair at it again")]
    UnknownPair,
    /// The key of the asking node is not one of the pair's keys.
    #[error(
        "the witness knows this pair by other keys; this node is a copy or was set up again, let its peer add its new key"
    )]
    WrongKey,
    /// A pair with this id and other keys is enrolled.
    #[error(
        "the witness already serves a pair of this id with other keys; if this pair was set up again, remove the old one with 'dyad-witness forget' first"
    )]
    PairTaken,
    /// A node may add a key for its peer only.
    #[error("a node cannot replace its own key at the witness; let its peer add the new one")]
    OwnKey,
    /// Pair, node and key of the request do not belong together.
    #[error("the question names another pair or node than the connection it came on; update the node")]
    Mismatch,
    /// The stored entry of this pair does not match its checksum or cannot be decoded.
    #[error(
        "the witness's record of this pair is damaged; remove it with 'dyad-witness forget' and enrol the pair again"
    )]
    Damaged,
}

#[cfg(test)]
mod tests {
    use dyad_link::frame::{from_payload, to_payload};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_have_the_bytes_of_docs_wire_md() {
        let key = Fingerprint([9; 32]);
        let request = Request { id: 1, pair: PairId(2), body: RequestBody::AddKey { node: NodeId::B, key } };
        let bytes = [&[1, 2, 1, 1][..], &[9; 32]].concat();
        assert_eq!(to_payload(&request).unwrap()[..], bytes);
        assert_eq!(from_payload::<Request>(&bytes).unwrap(), request);
        let replies = [Ok(Response::Added), Err(WitnessRefusal::WrongKey)].map(|outcome| ReplyFrame { id: 3, outcome });
        assert_eq!(replies.map(|reply| to_payload(&reply).unwrap().to_vec()), [vec![3, 0, 1], vec![3, 1, 1]]);
        let enrol = Enrol { pair: PairId(2), name: "p".into(), node: NodeId::A, keys: [Some(key), None] };
        let bytes = [&[2, 1, b'p', 0, 1][..], &[9; 32], &[0]].concat();
        assert_eq!(to_payload(&enrol).unwrap()[..], bytes);
        let enrolled: Result<Enrolled, WitnessRefusal> = Ok(Enrolled { witness: WitnessId(4), incarnation: 5 });
        assert_eq!(to_payload(&enrolled).unwrap()[..], [0, 4, 5]);
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_make_the_decoder_panic(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = from_payload::<Request>(&noise);
            let _ = from_payload::<ReplyFrame>(&noise);
            let _ = from_payload::<Enrol>(&noise);
            let _ = from_payload::<Result<Enrolled, WitnessRefusal>>(&noise);
        }
    }
}
