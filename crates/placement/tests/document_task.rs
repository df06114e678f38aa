//! The document's task, step by step.

use bytes::Bytes;
use dyad_desired::slots::{self, SLOT_BYTES};
use dyad_desired::{Change, Document, NodeRecord};
use dyad_mirror::{GuestError, GuestOp, VolumeChange};
use dyad_placement::{ChangeError, ChangeTicket, DocumentAction as A, DocumentRequest, DocumentTask, MembershipTerm};
use dyad_types::{BootTime, NodeId, VolumeId};

const NOW: BootTime = BootTime(7_000_000_000);

fn document() -> Document {
    let record = NodeRecord { name: "left".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    Document::new_pair("rig", record, "$argon2id$none").unwrap()
}

fn slot_of(document: Option<&Document>) -> Bytes {
    let mut slot = document.map_or_else(Vec::new, |document| slots::encode(document).unwrap().bytes);
    slot.resize(SLOT_BYTES, 0);
    slot.into()
}

fn reload(lead: bool, term: u64) -> DocumentRequest {
    DocumentRequest::Reload { lead, term: MembershipTerm(term) }
}

fn change(name: &str) -> DocumentRequest {
    let change = Change::CreateVolume { name: name.into(), size: 1 << 20, primary: NodeId::A };
    DocumentRequest::Change { change, ticket: ChangeTicket(5), asked_at: NOW }
}

struct Fixture(DocumentTask);

impl Fixture {
    fn request(&mut self, request: DocumentRequest) -> Vec<A> {
        let mut actions = Vec::new();
        self.0.request(NOW, request, &mut actions);
        actions
    }

    fn completed(&mut self, result: Result<Bytes, GuestError>) -> Vec<A> {
        let mut actions = Vec::new();
        self.0.completed(NOW, result, &mut actions);
        actions
    }

    /// The lead has read the first document in term 1.
    fn that_has_read() -> Self {
        let mut fixture = Self(DocumentTask::default());
        fixture.request(reload(true, 1));
        fixture.completed(Ok(slot_of(None)));
        fixture.completed(Ok(slot_of(Some(&document()))));
        fixture
    }
}

fn decided(result: Result<(), ChangeError>) -> A {
    A::Decided { ticket: ChangeTicket(5), result }
}

/// The lead reads as the writer of volume 0; the other member may read its own replica only.
#[test]
fn both_slots_are_read_and_a_document_is_published_once_in_each_term() {
    for lead in [true, false] {
        let mut fixture = Fixture(DocumentTask::default());
        for (term, published) in [(1, true), (1, false), (2, true)] {
            let asked = fixture.request(reload(lead, term));
            match (&asked[..], lead) {
                ([A::Volume(GuestOp::Read { .. })], true) | ([A::Volume(GuestOp::Peek { .. })], false) => {}
                other => panic!("{other:?}"),
            }
            fixture.completed(Ok(slot_of(None)));
            let read = fixture.completed(Ok(slot_of(Some(&document()))));
            let changed = term == 1;
            let publish = A::Publish { document: document(), term: MembershipTerm(term), changed };
            assert_eq!(read.contains(&publish), published, "{read:?}");
            assert_eq!(read.last(), Some(&A::ReadEnded));
        }
    }
}

#[test]
fn a_read_ends_at_its_first_failure() {
    let mut fixture = Fixture(DocumentTask::default());
    fixture.request(reload(true, 1));
    let error = GuestError::Closed;
    assert_eq!(fixture.completed(Err(error)), [A::NotRead(error), A::ReadEnded]);
    assert!(fixture.0.is_idle());
}

/// A crash after the write and before the flush can lose the change on both nodes.
#[test]
fn a_change_creates_its_volume_first_and_is_decided_after_the_flush() {
    let mut fixture = Fixture::that_has_read();
    let created = VolumeChange::Create { id: VolumeId(1), size: 1 << 20 };
    assert_eq!(fixture.request(change("disk")), [A::VolumeTable(created)]);
    let wrote = fixture.completed(Ok(Bytes::new()));
    let [A::Volume(GuestOp::Write { block, data })] = &wrote[..] else { panic!("{wrote:?}") };
    // Generation 2 goes to slot 0: the document before stays whole.
    assert_eq!(block.0, 0);
    let mut slot = data.to_vec();
    slot.resize(SLOT_BYTES, 0);
    let slots::SlotContent::Good(next) = slots::decode(&slot) else { panic!("a document") };
    assert_eq!(fixture.completed(Ok(Bytes::new())), [A::Volume(GuestOp::Flush)]);
    let publish = A::Publish { document: *next, term: MembershipTerm(1), changed: true };
    assert_eq!(fixture.completed(Ok(Bytes::new())), [publish, decided(Ok(()))]);
}

#[test]
fn a_step_that_fails_refuses_the_change_and_publishes_nothing() {
    for (fails_at, error) in [
        (0, ChangeError::Volume(GuestError::Disk)),
        (1, ChangeError::Interrupted(GuestError::Disk)),
        (2, ChangeError::Interrupted(GuestError::Disk)),
    ] {
        let mut fixture = Fixture::that_has_read();
        fixture.request(change("disk"));
        (0..fails_at).for_each(|_| drop(fixture.completed(Ok(Bytes::new()))));
        assert_eq!(fixture.completed(Err(GuestError::Disk)), [decided(Err(error))]);
    }
}

/// The other node may have written the document since.
#[test]
fn no_change_is_made_before_the_document_is_read_in_this_term_and_under_this_lead() {
    let mut fresh = Fixture(DocumentTask::default());
    assert_eq!(fresh.request(change("disk")), [decided(Err(ChangeError::NoDocument))]);
    for again in [reload(false, 1), reload(true, 2)] {
        let mut fixture = Fixture::that_has_read();
        fixture.request(again);
        fixture.completed(Err(GuestError::Closed));
        assert_eq!(fixture.request(change("disk")), [decided(Err(ChangeError::NoDocument))]);
    }
}

#[test]
fn requests_wait_for_those_before_them_and_an_old_change_is_refused() {
    let mut fixture = Fixture::that_has_read();
    fixture.request(change("disk"));
    let confirm = DocumentRequest::Confirm { ticket: ChangeTicket(9) };
    assert_eq!(fixture.request(confirm), []);
    fixture.request(change("other"));
    let mut actions = Vec::new();
    let late = NOW + 20_000_000_001;
    (0..3).for_each(|_| fixture.0.completed(late, Ok(Bytes::new()), &mut actions));
    let last = [A::Confirmed { ticket: ChangeTicket(9) }, decided(Err(ChangeError::TooLate))];
    assert_eq!(actions[actions.len() - 2..], last);
    assert!(fixture.0.is_idle());
}

#[test]
fn a_change_that_breaks_a_rule_is_refused_with_the_reason() {
    let mut fixture = Fixture::that_has_read();
    let request = DocumentRequest::Change {
        change: Change::DeleteVolume { name: "none".into() },
        ticket: ChangeTicket(5),
        asked_at: NOW,
    };
    let actions = fixture.request(request);
    assert!(matches!(&actions[..], [A::Decided { result: Err(ChangeError::Rule(_)), .. }]), "{actions:?}");
}
