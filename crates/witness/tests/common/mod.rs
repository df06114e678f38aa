//! A pair for the tests: an id, the keys of both nodes, and the requests that they send to a witness.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::time::Duration;

use dyad_link::tls::TlsIdentity;
use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{Config, WitnessRequest};
use dyad_types::NodeId;
use dyad_witness::client::{self, Client, EnrolError, Enrolment, OneTimeCode, Target};
use dyad_witness::protocol::Enrol;
use dyad_witness::testing;

/// Time limit of each answer, long enough for a busy machine.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Pair {
    pub id: PairId,
    pub a: TlsIdentity,
    pub b: TlsIdentity,
}

impl Pair {
    pub fn new() -> Self {
        let node = |name| TlsIdentity::generate(name).unwrap();
        Self { id: PairId::generate(), a: node("a"), b: node("b") }
    }

    pub fn enrolment(&self) -> Enrol {
        let keys = [Some(self.a.fingerprint()), Some(self.b.fingerprint())];
        Enrol { pair: self.id, name: "office".into(), node: NodeId::A, keys }
    }

    pub async fn enrol(&self, address: &str, code: &str) -> Result<Enrolment, EnrolError> {
        client::enrol(address, OneTimeCode(code), &self.a, &self.enrolment(), TEST_TIMEOUT).await
    }

    pub fn client(&self, identity: &TlsIdentity, address: &str, witness: Fingerprint) -> Client {
        let config = Target { address: address.into(), pair: self.id, identity: identity.clone(), witness };
        Client::new(&config).unwrap()
    }

    pub fn both(&self, enrolment: &Enrolment) -> Config {
        testing::both_in_sync(enrolment.enrolled)
    }

    pub fn learn(&self, base: &Config) -> WitnessRequest {
        testing::learn_request(self.id, base, 0)
    }

    pub fn solo(&self, node: NodeId, base: &Config) -> WitnessRequest {
        testing::solo_request(self.id, node, base, 0)
    }
}
