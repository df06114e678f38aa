//! The bytes of a beacon datagram.
//!
//! ```text
//! offset size                                     (all numbers little endian)
//!      0    4  magic "DYHB"
//!      4    1  version, 1
//!      5    1  sending node: 0 = A, 1 = B
//!      6    2  length n of the body in bytes, at most 1364
//!      8   16  pair id
//!     24    8  instance: random, one per start of the sender
//!     32    8  challenge: random, never 0, drawn by the sender
//!     40    8  echo: the receiver's challenge as the sender knows it, or 0
//!     48    8  counter: grows with each datagram of this instance
//!     56    n  body
//!   56+n   32  HMAC-SHA256 by the pair key over all before
//! ```

use std::ops::Range;

use ring::hmac;

use crate::{PairId, PairKey};
use dyad_types::NodeId;

const MAGIC: [u8; 4] = *b"DYHB";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 56;
const MAC_BYTES: usize = 32;

/// Number of bytes of a datagram besides its body.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + MAC_BYTES;
/// Maximum length of a body, in bytes: the datagram fits into one IPv6 packet of 1500 bytes on plain Ethernet.
pub const MAX_BODY: usize = 1500 - 40 - 8 - OVERHEAD_BYTES;

/// The header fields by which the receiver tells a new datagram from a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreshnessFields {
    pub(super) instance: u64,
    pub(super) challenge: u64,
    pub(super) echo: u64,
    pub(super) counter: u64,
}

/// The result of [`DatagramCodec::open`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DatagramKind {
    /// Its HMAC is right, so that the peer sent it, now or at an earlier time. With the position of the body.
    Authentic(FreshnessFields, Range<usize>),
    /// A pairing offer of [`crate::discovery`].
    Discovery,
    /// Not a datagram of this format and version.
    Foreign,
    /// Of another pair, or from a node with the same letter as this one.
    OtherPair,
    /// Its HMAC is wrong.
    Forged,
}

/// Writes, authenticates and checks the datagrams of one pair.
#[derive(Debug)]
pub(super) struct DatagramCodec {
    pair: [u8; 16],
    node: NodeId,
    key: hmac::Key,
}

/// The byte for a node in a datagram: 0 or 1.
fn wire_node(node: NodeId) -> u8 {
    match node {
        NodeId::A => 0,
        NodeId::B => 1,
    }
}

impl DatagramCodec {
    pub(super) fn new(pair: PairId, node: NodeId, key: &PairKey) -> Self {
        Self { pair: pair.0.to_le_bytes(), node, key: hmac::Key::new(hmac::HMAC_SHA256, &key.0) }
    }

    /// Writes the datagram, with its HMAC, to the start of `buffer` and returns its length.
    pub(super) fn seal(&self, fields: &FreshnessFields, body: &[u8], buffer: &mut [u8]) -> usize {
        let length = u16::try_from(body.len()).expect("a body is checked to be short");
        buffer[0..4].copy_from_slice(&MAGIC);
        buffer[4] = VERSION;
        buffer[5] = wire_node(self.node);
        buffer[6..8].copy_from_slice(&length.to_le_bytes());
        buffer[8..24].copy_from_slice(&self.pair);
        buffer[24..32].copy_from_slice(&fields.instance.to_le_bytes());
        buffer[32..40].copy_from_slice(&fields.challenge.to_le_bytes());
        buffer[40..48].copy_from_slice(&fields.echo.to_le_bytes());
        buffer[48..56].copy_from_slice(&fields.counter.to_le_bytes());
        let end = HEADER_BYTES + body.len();
        buffer[HEADER_BYTES..end].copy_from_slice(body);
        let tag = hmac::sign(&self.key, &buffer[..end]);
        buffer[end..end + MAC_BYTES].copy_from_slice(tag.as_ref());
        end + MAC_BYTES
    }

    /// Classifies a datagram. The HMAC is computed only if the header names this pair and the other node.
    pub(super) fn open(&self, datagram: &[u8]) -> DatagramKind {
        if datagram.starts_with(&crate::discovery::MAGIC) {
            return DatagramKind::Discovery;
        }
        let Some(head) = datagram.first_chunk::<HEADER_BYTES>() else { return DatagramKind::Foreign };
        let length = usize::from(u16::from_le_bytes([head[6], head[7]]));
        let end = HEADER_BYTES + length;
        if head[..4] != MAGIC || head[4] != VERSION || datagram.len() != end + MAC_BYTES || length > MAX_BODY {
            return DatagramKind::Foreign;
        }
        if head[8..24] != self.pair || head[5] != wire_node(self.node.peer()) {
            return DatagramKind::OtherPair;
        }
        if hmac::verify(&self.key, &datagram[..end], &datagram[end..]).is_err() {
            return DatagramKind::Forged;
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let fields =
            FreshnessFields { instance: number(24), challenge: number(32), echo: number(40), counter: number(48) };
        DatagramKind::Authentic(fields, HEADER_BYTES..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: FreshnessFields = FreshnessFields { instance: 1, challenge: 2, echo: 3, counter: 4 };

    fn codec(node: NodeId) -> DatagramCodec {
        DatagramCodec::new(PairId(5), node, &PairKey([6; 32]))
    }

    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut buffer = [0; OVERHEAD_BYTES + MAX_BODY];
        let length = codec(NodeId::A).seal(&FIELDS, body, &mut buffer);
        buffer[..length].to_vec()
    }

    #[test]
    fn the_datagram_has_the_bytes_of_docs_wire_md() {
        let bytes = sealed(b"xy");
        assert_eq!(&bytes[..8], b"DYHB\x01\x00\x02\x00");
        assert_eq!((bytes[8], bytes[24], bytes[32], bytes[40], bytes[48]), (5, 1, 2, 3, 4));
        assert_eq!(&bytes[56..58], b"xy");
        assert_eq!(bytes.len(), 56 + 2 + 32);
        assert_eq!(MAX_BODY, 1364);
    }

    #[test]
    fn only_datagrams_of_the_other_node_of_the_same_pair_are_authentic() {
        let bytes = sealed(b"xy");
        assert_eq!(codec(NodeId::B).open(&bytes), DatagramKind::Authentic(FIELDS, 56..58));
        assert_eq!(codec(NodeId::A).open(&bytes), DatagramKind::OtherPair);
        assert_eq!(DatagramCodec::new(PairId(9), NodeId::B, &PairKey([6; 32])).open(&bytes), DatagramKind::OtherPair);
        assert_eq!(DatagramCodec::new(PairId(5), NodeId::B, &PairKey([7; 32])).open(&bytes), DatagramKind::Forged);
    }

    proptest! {
        #[test]
        fn no_changed_datagram_is_authentic(body in proptest::collection::vec(any::<u8>(), 0..200), at: usize, bit in 0..8u32) {
            let mut bytes = sealed(&body);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(codec(NodeId::B).open(&bytes), DatagramKind::Authentic(..)));
        }

        #[test]
        fn random_bytes_are_never_authentic_and_no_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!matches!(codec(NodeId::B).open(&noise), DatagramKind::Authentic(..)));
            let mut behind = b"DYHB\x01\x00".to_vec();
            behind.extend(noise);
            prop_assert!(!matches!(codec(NodeId::B).open(&behind), DatagramKind::Authentic(..)));
        }
    }
}
