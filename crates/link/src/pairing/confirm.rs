//! SPAKE2 with the code as password, and the proof that both sides derived the same key.

use ring::hmac;
use spake2::{Ed25519Group, Identity as Name, Password, Spake2};

use super::purpose::Purpose;
use crate::Fingerprint;
use crate::tls::Channel;

/// The two sides of a pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PairingRole {
    /// The side on which the code was typed.
    Joiner,
    /// The side that showed the code.
    Host,
}

/// The values, besides the code, that both sides of one TLS connection must agree on.
#[derive(Debug, Clone)]
struct Transcript {
    purpose: Purpose,
    joiner: Fingerprint,
    host: Fingerprint,
    binding: [u8; 32],
}

impl Transcript {
    fn name(&self, role: PairingRole) -> Name {
        let (word, key) = match role {
            PairingRole::Joiner => ("joiner", self.joiner),
            PairingRole::Host => ("host", self.host),
        };
        let purpose = match self.purpose {
            Purpose::Node => "node",
            Purpose::Witness => "witness",
        };
        Name::new(format!("dyad pairing 1 {purpose} {word} {key}").as_bytes())
    }
}

/// One side of the SPAKE2 exchange, before the other side's message is received.
pub(super) struct Exchange {
    role: PairingRole,
    transcript: Transcript,
    state: Spake2<Ed25519Group>,
    message: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(secret: &str, purpose: Purpose, role: PairingRole, own: Fingerprint, channel: &Channel) -> Self {
        Self::between(secret, purpose, role, own, channel.peer, channel.binding)
    }

    fn between(
        secret: &str,
        purpose: Purpose,
        role: PairingRole,
        own: Fingerprint,
        peer: Fingerprint,
        binding: [u8; 32],
    ) -> Self {
        let (joiner, host) = match role {
            PairingRole::Joiner => (own, peer),
            PairingRole::Host => (peer, own),
        };
        let transcript = Transcript { purpose, joiner, host, binding };
        let (password, a, b) =
            (Password::new(secret), transcript.name(PairingRole::Joiner), transcript.name(PairingRole::Host));
        let (state, message) = match role {
            PairingRole::Joiner => Spake2::start_a(&password, &a, &b),
            PairingRole::Host => Spake2::start_b(&password, &a, &b),
        };
        Self { role, transcript, state, message }
    }

    /// The SPAKE2 message for the other side.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Derives the key; `None` if `theirs` is not a SPAKE2 message.
    pub(super) fn finish(self, theirs: &[u8]) -> Option<SharedKey> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.state.finish(theirs).ok()?);
        Some(SharedKey { role: self.role, transcript: self.transcript, key })
    }
}

/// The derived key. Both sides have the same one only if code, purpose and both fingerprints are equal.
pub(super) struct SharedKey {
    role: PairingRole,
    transcript: Transcript,
    key: hmac::Key,
}

impl SharedKey {
    fn confirmation(&self, role: PairingRole) -> Vec<u8> {
        let word: &[u8] = match role {
            PairingRole::Joiner => b"dyad pairing 1 joiner confirms",
            PairingRole::Host => b"dyad pairing 1 host confirms",
        };
        [word, &self.transcript.joiner.0, &self.transcript.host.0, &self.transcript.binding].concat()
    }

    /// The HMAC by which this side proves that it derived the key.
    pub(super) fn own_proof(&self) -> [u8; 32] {
        let tag = hmac::sign(&self.key, &self.confirmation(self.role));
        std::array::from_fn(|at| tag.as_ref()[at])
    }

    /// Whether `proof` shows that the other side derived the same key on the same TLS connection.
    pub(super) fn accepts(&self, proof: &[u8; 32]) -> bool {
        let other = match self.role {
            PairingRole::Joiner => PairingRole::Host,
            PairingRole::Host => PairingRole::Joiner,
        };
        hmac::verify(&self.key, &self.confirmation(other), proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINER: Fingerprint = Fingerprint([1; 32]);
    const HOST: Fingerprint = Fingerprint([2; 32]);

    struct Side {
        secret: &'static str,
        purpose: Purpose,
        own: Fingerprint,
        peer: Fingerprint,
        binding: [u8; 32],
    }

    impl Side {
        fn start(&self, role: PairingRole) -> Exchange {
            Exchange::between(self.secret, self.purpose, role, self.own, self.peer, self.binding)
        }
    }

    fn joiner() -> Side {
        Side { secret: "123456", purpose: Purpose::Node, own: JOINER, peer: HOST, binding: [3; 32] }
    }

    fn host() -> Side {
        Side { own: HOST, peer: JOINER, ..joiner() }
    }

    fn agree(joiner: Side, host: Side) -> bool {
        let (joiner, host) = (joiner.start(PairingRole::Joiner), host.start(PairingRole::Host));
        let (to_host, to_joiner) = (joiner.message().to_vec(), host.message().to_vec());
        let (joiner, host) = (joiner.finish(&to_joiner).unwrap(), host.finish(&to_host).unwrap());
        let outcome = (joiner.accepts(&host.own_proof()), host.accepts(&joiner.own_proof()));
        assert_eq!(outcome.0, outcome.1);
        outcome.0
    }

    #[test]
    fn both_sides_accept_each_other_with_one_code_on_one_connection() {
        assert!(agree(joiner(), host()));
    }

    #[test]
    fn a_difference_in_code_purpose_key_or_connection_is_detected() {
        let unknown = Fingerprint([9; 32]);
        assert!(!agree(Side { secret: "123457", ..joiner() }, host()));
        assert!(!agree(Side { purpose: Purpose::Witness, ..joiner() }, host()));
        assert!(!agree(Side { own: unknown, ..joiner() }, host()));
        assert!(!agree(Side { peer: unknown, ..joiner() }, host()));
        assert!(!agree(Side { binding: [4; 32], ..joiner() }, host()));
    }

    #[test]
    fn a_side_does_not_accept_its_own_proof() {
        let (joiner, host) = (joiner().start(PairingRole::Joiner), host().start(PairingRole::Host));
        let to_joiner = host.message().to_vec();
        let keys = joiner.finish(&to_joiner).unwrap();
        assert!(!keys.accepts(&keys.own_proof()));
    }

    #[test]
    fn bytes_that_are_no_spake2_message_are_refused() {
        assert!(joiner().start(PairingRole::Joiner).finish(b"nonsense").is_none());
    }
}
