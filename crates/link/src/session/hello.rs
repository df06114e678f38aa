//! The greeting of a session: both sides send their identities and agree on a version.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::PeerLinkConfig;
use crate::PairId;
use crate::frame::FrameError;
use crate::tls::{Channel, TlsError};
use dyad_types::NodeId;

/// Maximum length of [`PeerLinkConfig::greeting`], in bytes.
pub const MAX_GREETING: usize = 4096;
/// Maximum length of a frame before the session is up, in bytes.
const MAX_HELLO: usize = MAX_GREETING + 1024;

pub(super) const HELLO: u16 = 0x0101;
pub(super) const WELCOME: u16 = 0x0102;
pub(super) const REFUSE: u16 = 0x0103;
pub(super) const USE: u16 = 0x0104;
pub(super) const ALIVE: u16 = 0x0105;
pub(super) const DATA: u16 = 0x0106;

/// The first message of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    pair: PairId,
    node: NodeId,
    boot: u128,
    instance: u128,
    /// Grows with each greeting that this instance begins; 0 from the side that listens.
    attempt: u64,
    /// Lowest version of the messages in `Data` frames that the sender knows.
    lowest: u16,
    /// Highest such version.
    highest: u16,
    greeting: Bytes,
}

/// The reason for which a `Hello` is refused, as sent to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum WireRefusal {
    Pair { pair: PairId },
    SameNode,
    Version { lowest: u16, highest: u16 },
    Stale,
}

/// The identity that the peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// The peer's letter, which always differs from this node's.
    pub node: NodeId,
    /// Random number of the peer's boot.
    pub boot: u128,
    /// Random number of the start of the peer's program.
    pub instance: u128,
    /// The version of the messages in `Data` frames on this session.
    pub version: u16,
    /// The peer's [`PeerLinkConfig::greeting`].
    pub greeting: Bytes,
}

/// The errors of a TCP connection that was established but became no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS failed, for instance because the peer has another key.
    #[error(transparent)]
    Tls(TlsError),
    /// The other side belongs to another pair.
    #[error(
        "the other node belongs to the pair {theirs}, this one to {ours}; connect the right cables or join it again"
    )]
    Pair { ours: PairId, theirs: PairId },
    /// Both nodes have the same letter.
    #[error("the other node says it is node {node} as well; one of them is a copy and must be set up again")]
    SameNode {
        /// The letter of both nodes.
        node: NodeId,
    },
    /// The nodes have no version in common.
    #[error(
        "the other node speaks versions {} to {}, this one {} to {}; update the older node first",
        theirs.start(), theirs.end(), ours.start(), ours.end()
    )]
    Version {
        /// Versions of this node.
        ours: RangeInclusive<u16>,
        /// Versions of the other node.
        theirs: RangeInclusive<u16>,
    },
    /// The same instance of node A has greeted with an equal or higher attempt before.
    #[error("a newer connection from the same node is in use")]
    Stale,
    /// The connection broke, or the other side sent an invalid greeting.
    #[error(transparent)]
    Frame(FrameError),
    /// The greeting was not complete in time.
    #[error("the other side did not finish its greeting in time; check the network between the nodes")]
    Timeout,
}

impl From<FrameError> for HandshakeError {
    /// In TLS 1.3 a client learns by its first read that its key is refused, so an I/O error is searched for a TLS
    /// alert.
    fn from(error: FrameError) -> Self {
        match TlsError::from_frame(error) {
            Ok(TlsError::Io(source)) => Self::Frame(FrameError::Io(source)),
            Ok(tls) => Self::Tls(tls),
            Err(frame) => Self::Frame(frame),
        }
    }
}

/// A connection whose greeting has succeeded.
pub(super) struct GreetedConnection {
    pub(super) channel: Channel,
    pub(super) hello: PeerHello,
    pub(super) attempt: u64,
}

fn hello_of(config: &PeerLinkConfig, attempt: u64) -> Hello {
    let mut greeting = config.greeting.clone();
    greeting.truncate(MAX_GREETING);
    Hello {
        pair: config.pair,
        node: config.node,
        boot: config.boot,
        instance: config.instance,
        attempt,
        lowest: *config.versions.start(),
        highest: *config.versions.end(),
        greeting,
    }
}

/// The highest version that is in both ranges.
fn highest_common_version(ours: &RangeInclusive<u16>, theirs: &RangeInclusive<u16>) -> Option<u16> {
    let highest = *ours.end().min(theirs.end());
    (highest >= *ours.start().max(theirs.start())).then_some(highest)
}

/// Checks the other side's hello and returns the version to speak. The error has two forms: for the peer and for this
/// node.
fn check_hello(config: &PeerLinkConfig, theirs: &Hello) -> Result<u16, (WireRefusal, HandshakeError)> {
    if theirs.pair != config.pair {
        let reason = HandshakeError::Pair { ours: config.pair, theirs: theirs.pair };
        return Err((WireRefusal::Pair { pair: config.pair }, reason));
    }
    if theirs.node == config.node {
        return Err((WireRefusal::SameNode, HandshakeError::SameNode { node: config.node }));
    }
    let range = theirs.lowest..=theirs.highest;
    highest_common_version(&config.versions, &range).ok_or_else(|| {
        let (lowest, highest) = (*config.versions.start(), *config.versions.end());
        (
            WireRefusal::Version { lowest, highest },
            HandshakeError::Version { ours: config.versions.clone(), theirs: range },
        )
    })
}

impl WireRefusal {
    fn into_error(self, config: &PeerLinkConfig) -> HandshakeError {
        match self {
            Self::Pair { pair } => HandshakeError::Pair { ours: config.pair, theirs: pair },
            Self::SameNode => HandshakeError::SameNode { node: config.node },
            Self::Version { lowest, highest } => {
                HandshakeError::Version { ours: config.versions.clone(), theirs: lowest..=highest }
            }
            Self::Stale => HandshakeError::Stale,
        }
    }
}

fn peer_hello(hello: Hello, version: u16) -> PeerHello {
    PeerHello { node: hello.node, boot: hello.boot, instance: hello.instance, version, greeting: hello.greeting }
}

/// Greets as the side that connected.
pub(super) async fn greet_as_dialer(
    mut channel: Channel,
    config: &PeerLinkConfig,
    attempt: u64,
) -> Result<GreetedConnection, HandshakeError> {
    channel.reader.set_limit(MAX_HELLO);
    channel.writer.send(HELLO, &hello_of(config, attempt)).await?;
    let frame = channel.reader.next_required().await?;
    if frame.kind == REFUSE {
        return Err(frame.message::<WireRefusal>()?.into_error(config));
    }
    let theirs: Hello = frame.expect(WELCOME)?;
    let version = check_hello(config, &theirs).map_err(|(_, reason)| reason)?;
    channel.writer.send_bytes(USE, &[]).await?;
    channel.reader.set_limit(crate::frame::MAX_PAYLOAD);
    Ok(GreetedConnection { channel, hello: peer_hello(theirs, version), attempt })
}

/// Greets as the side that listens. `stale` tells whether the peer's greeting, given by instance and attempt, is not
/// newer than the last successful one.
pub(super) async fn greet_as_listener(
    mut channel: Channel,
    config: &PeerLinkConfig,
    stale: impl Fn(u128, u64) -> bool,
) -> Result<GreetedConnection, HandshakeError> {
    channel.reader.set_limit(MAX_HELLO);
    let theirs: Hello = channel.reader.next_required().await?.expect(HELLO)?;
    let checked = match check_hello(config, &theirs) {
        Ok(_) if stale(theirs.instance, theirs.attempt) => Err((WireRefusal::Stale, HandshakeError::Stale)),
        checked => checked,
    };
    let version = match checked {
        Ok(version) => version,
        Err((refuse, reason)) => {
            channel.writer.send(REFUSE, &refuse).await?;
            channel.writer.close().await?;
            return Err(reason);
        }
    };
    channel.writer.send(WELCOME, &hello_of(config, 0)).await?;
    channel.reader.next_required().await?.expect_empty(USE)?;
    channel.reader.set_limit(crate::frame::MAX_PAYLOAD);
    let attempt = theirs.attempt;
    Ok(GreetedConnection { channel, hello: peer_hello(theirs, version), attempt })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(highest_common_version(&(1..=3), &(2..=5)), Some(3));
        assert_eq!(highest_common_version(&(2..=5), &(1..=3)), Some(3));
        assert_eq!(highest_common_version(&(1..=1), &(1..=1)), Some(1));
        assert_eq!(highest_common_version(&(1..=2), &(3..=4)), None);
    }

    #[test]
    fn hello_and_refusal_have_the_bytes_of_docs_wire_md() {
        let hello = Hello {
            pair: PairId(1),
            node: NodeId::B,
            boot: 2,
            instance: 300,
            attempt: 4,
            lowest: 5,
            highest: 6,
            greeting: Bytes::from_static(b"hi"),
        };
        let bytes = [1, 1, 2, 0xac, 0x02, 4, 5, 6, 2, b'h', b'i'];
        assert_eq!(crate::frame::to_payload(&hello).unwrap()[..], bytes);
        assert_eq!(crate::frame::from_payload::<Hello>(&bytes).unwrap(), hello);
        let refusals = [
            WireRefusal::Pair { pair: PairId(7) },
            WireRefusal::SameNode,
            WireRefusal::Version { lowest: 1, highest: 2 },
        ];
        let payloads = refusals.map(|refuse| crate::frame::to_payload(&refuse).unwrap());
        assert_eq!(payloads.map(|bytes| bytes.to_vec()), [vec![0, 7], vec![1], vec![2, 1, 2]]);
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_make_the_decoder_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = crate::frame::from_payload::<Hello>(&noise);
            let _ = crate::frame::from_payload::<WireRefusal>(&noise);
        }
    }
}
