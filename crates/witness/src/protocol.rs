//! What travels between nodes and the witness, in frames of [`dyad_link::frame`].
//!
//! A connection carries requests of a node one after the other; each is answered before the next
//! one is read. Enrolment travels inside a pairing ([`dyad_link::pairing`]) instead.

use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{Answer, WitnessAsk, WitnessId};
use dyad_types::NodeId;
use serde::{Deserialize, Serialize};

/// Kind of the frame with a [`Request`].
pub const REQUEST: u16 = 0x0301;
/// Kind of the frame with a [`Reply`].
pub const REPLY: u16 = 0x0302;
/// Longest request or reply in bytes.
pub const MAX_MESSAGE: usize = 8 << 10;
/// Longest name of a pair in bytes; the rest is cut off.
pub const MAX_NAME: usize = 64;

/// The keys of a pair's nodes, by [`NodeId::index`].
pub type Keys = [Option<Fingerprint>; 2];

/// A question of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Given back in the reply.
    pub id: u64,
    /// The pair it is about.
    pub pair: PairId,
    /// The question.
    pub body: Body,
}

/// The question itself.
#[expect(clippy::large_enum_variant, reason = "questions live one at a time")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Read, or vote; the acceptor's rules decide.
    Ask(WitnessAsk),
    /// Lets `key` speak for `node`, the peer of the one who asks: it joined, or was set up anew.
    AddKey {
        /// Whose key it is.
        node: NodeId,
        /// The key.
        key: Fingerprint,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// The answer, or why there is none.
    pub outcome: Result<Response, Refused>,
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Body::Ask`].
    Answer(Answer),
    /// To [`Body::AddKey`].
    Added,
}

/// What an enrolling node hands over, inside the pairing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// The pair.
    pub pair: PairId,
    /// Its name, for `dyad-witness list`.
    pub name: String,
    /// The node that enrols.
    pub node: NodeId,
    /// The keys of the nodes known so far, that of `node` among them.
    pub keys: Keys,
}

/// What the witness answers to [`Enrol`]: the pair's next configuration must admit this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Goes to [`dyad_quorum::Config::witness`].
    pub witness: WitnessId,
    /// Goes to the witness's place in [`dyad_quorum::Config::incarnations`].
    pub incarnation: u64,
}

/// Why the witness does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The pair was never enrolled here, or was removed.
    #[error("the witness does not know this pair; enrol the pair at it again")]
    UnknownPair,
    /// The asking machine's key is not one of the pair's.
    #[error(
        "the witness knows this pair by other keys; this node is a copy or was set up anew, let its peer add its new key"
    )]
    WrongKey,
    /// A pair of this id but with other keys is enrolled.
    #[error(
        "the witness already serves a pair of this id with other keys; if that is this pair set up anew, remove the old one with 'dyad-witness forget' first"
    )]
    PairTaken,
    /// A node may add a key for its peer only.
    #[error("a node cannot replace its own key at the witness; let its peer add the new one")]
    OwnKey,
    /// Request, question and key do not belong together.
    #[error("the question names another pair or node than the connection it came on; update the node")]
    Mismatch,
    /// The record of this pair does not fit its checksum.
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
    fn the_bytes_are_what_the_wire_page_says() {
        let key = Fingerprint([9; 32]);
        let request = Request { id: 1, pair: PairId(2), body: Body::AddKey { node: NodeId::B, key } };
        let bytes = [&[1, 2, 1, 1][..], &[9; 32]].concat();
        assert_eq!(to_payload(&request).unwrap()[..], bytes);
        assert_eq!(from_payload::<Request>(&bytes).unwrap(), request);
        let replies = [Ok(Response::Added), Err(Refused::WrongKey)].map(|outcome| Reply { id: 3, outcome });
        assert_eq!(replies.map(|reply| to_payload(&reply).unwrap().to_vec()), [vec![3, 0, 1], vec![3, 1, 1]]);
        let enrol = Enrol { pair: PairId(2), name: "p".into(), node: NodeId::A, keys: [Some(key), None] };
        let bytes = [&[2, 1, b'p', 0, 1][..], &[9; 32], &[0]].concat();
        assert_eq!(to_payload(&enrol).unwrap()[..], bytes);
        let enrolled: Result<Enrolled, Refused> = Ok(Enrolled { witness: WitnessId(4), incarnation: 5 });
        assert_eq!(to_payload(&enrolled).unwrap()[..], [0, 4, 5]);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = from_payload::<Request>(&noise);
            let _ = from_payload::<Reply>(&noise);
            let _ = from_payload::<Enrol>(&noise);
            let _ = from_payload::<Result<Enrolled, Refused>>(&noise);
        }
    }
}
