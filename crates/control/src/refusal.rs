//! Refusals as types: one code for programs, one sentence for people.
//!
//! **Invariants.** [`RefusalCode`] is a closed list: the two decisions that depend on a code (the HTTP status, and whether
//! the change was certainly not made) are exhaustive matches here and nowhere else. Words on the wire never change their
//! meaning.

use crate::codes::wire_codes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable name of the reason, for programs.
    pub code: RefusalCode,
    /// One sentence for people: the reason, and what to do.
    pub sentence: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    /// The core ends while a request waits; init starts it again.
    pub fn stopping() -> Self {
        Self::new(RefusalCode::Stopping, "The core is stopping; ask again in a moment.")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Refusal {}

impl From<dyad_desired::Refusal> for Refusal {
    fn from(refusal: dyad_desired::Refusal) -> Self {
        Self::new(RefusalCode::from(&refusal), refusal.to_string())
    }
}

/// An error and its causes in one line, as people read it: `/dev/vdb cannot be opened: No such device`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

wire_codes! {
    /// The reason of a refusal, for programs. The sentence beside it is for people.
    RefusalCode;

    /// The name breaks the rules of names.
    BadName = "bad-name",
    /// The name is taken.
    NameExists = "name-exists",
    /// No volume, VM or user has this name.
    UnknownName = "unknown-name",
    /// Memory or processors of the smaller node do not suffice for the VM, or the image is larger than the volume.
    DoesNotFit = "does-not-fit",
    /// The volume is a disk of a VM.
    VolumeInUse = "volume-in-use",
    /// An image is being sent into the volume.
    ImageComing = "image-coming",
    /// The import that the change names is not under way.
    NoImage = "no-image",
    /// The VM names one volume twice.
    DiskTwice = "disk-twice",
    /// The VM is meant to run, or VMs run on this node: stop them first.
    VmRunning = "vm-running",
    /// The VM was changed while it was being deleted.
    VmChanged = "vm-changed",
    /// The change touches a VM or a volume of a node outside the in-sync set that may still run VMs: its fence is not over.
    PeerFence = "peer-fence",
    /// A number of the request is outside its range.
    OutOfRange = "out-of-range",
    NotWholeMib = "not-whole-mib",
    BadText = "bad-text",
    TooMany = "too-many",
    /// The node that the change names has not joined.
    NoNode = "no-node",
    /// The document would be larger than 1 MiB.
    TooLarge = "too-large",

    /// The change waited for more than 20 s and was not begun.
    TooLate = "too-late",
    /// The other node leads the pair and must decide this request, which this node cannot or does not pass on.
    NotLead = "not-lead",
    /// The lead or the membership of the pair changed while the request was decided.
    MembershipChanged = "membership-changed",
    /// This node has not read the document yet.
    NoDocument = "no-document",
    /// The session to the other node ended while it decided the change.
    PeerLost = "peer-lost",
    /// The other node answered in a form that this version does not know, or cannot read this version's form.
    PeerUnreadable = "peer",
    /// The pool of this node failed: the other node decides this request.
    PoolFailed = "pool-failed",
    /// The pool could not create a volume that the change needs.
    Pool = "pool",
    /// This daemon ends; init starts it again.
    Stopping = "stopping",
    /// This node is broken ([`Phase::Broken`](crate::Phase::Broken)); the sentence says why.
    Broken = "broken",
    /// The request is malformed or not known.
    BadRequest = "bad-request",

    /// Another import into the volume is under way.
    Busy = "busy",
    /// The volume is written by the other node.
    OtherNode = "other-node",
    /// The image did not come completely: the volume keeps its old content.
    ImportFailed = "import-failed",
    /// The image came completely; whether it replaced the old content is not known.
    ImportUnknown = "import-unknown",

    /// This node belongs to no pair.
    NotSetUp = "not-set-up",
    /// This node belongs to a pair.
    AlreadySetUp = "already-set-up",
    /// Setup is under way.
    SettingUp = "setting-up",
    SetupFailed = "setup-failed",
    NoDisk = "no-disk",
    UnknownDisk = "unknown-disk",
    /// The disk holds a pool of a pair.
    DiskOfPair = "disk-of-pair",
    /// The disk holds no pool: there is nothing to erase.
    NoPoolDisk = "no-pool-disk",
    /// Partitioning or formatting a disk failed.
    Format = "format",
    /// A disk cannot be opened or erased.
    Disk = "disk",
    /// An index partition cannot be mounted.
    Index = "index",
    /// The register cannot be made.
    Register = "register",
    /// The state partition cannot be written.
    State = "state",

    /// The pair has two nodes in sync.
    PairComplete = "pair-complete",
    /// No first node is heard.
    NoOffer = "no-offer",
    /// Several pairs are heard and none was chosen.
    SeveralOffers = "several-offers",
    /// The first node is heard but does not answer.
    NoAnswer = "no-answer",
    /// The exchange with the first node or the witness failed; the sentence says how.
    Pairing = "pairing",
    WrongCode = "wrong-code",
    CodeExpired = "code-expired",
    NoCodeOpen = "no-code-open",
    /// The code was tried too often.
    CodeVoid = "code-void",
    /// The witness refused the enrolment.
    Witness = "witness",

    /// The typed confirmation is not the name of the node or of the disk.
    Confirm = "confirm",
    /// The copy here may be the last one: the names of pair and node must be typed.
    ConfirmLoss = "confirm-loss",
    /// The other node did not take over within 10 s.
    NoPeer = "no-peer",
    /// A watchdog test runs: this node restarts.
    Proving = "proving",

    /// A word that this version does not know, from a core of another version.
    Unrecognised = "unrecognised",
}

impl RefusalCode {
    /// Status of the HTTP response that carries the refusal: 404 = the named object does not exist, 409 = the request
    /// conflicts with the present state, 422 = the request itself must change, 500 = a part of the pair failed, 503 = the
    /// same request may succeed later.
    #[must_use]
    pub fn http_status(self) -> u16 {
        use RefusalCode as C;
        match self {
            C::UnknownName | C::UnknownDisk => 404,
            C::NameExists
            | C::VolumeInUse
            | C::ImageComing
            | C::VmRunning
            | C::VmChanged
            | C::DoesNotFit
            | C::AlreadySetUp
            | C::NotSetUp
            | C::PairComplete
            | C::Busy
            | C::OtherNode
            | C::Proving => 409,
            C::BadName
            | C::NoImage
            | C::DiskTwice
            | C::OutOfRange
            | C::NotWholeMib
            | C::BadText
            | C::TooMany
            | C::NoNode
            | C::TooLarge
            | C::BadRequest
            | C::ImportFailed
            | C::NoDisk
            | C::DiskOfPair
            | C::NoPoolDisk
            | C::NoOffer
            | C::SeveralOffers
            | C::Pairing
            | C::WrongCode
            | C::CodeExpired
            | C::NoCodeOpen
            | C::CodeVoid
            | C::Witness
            | C::Confirm
            | C::ConfirmLoss => 422,
            C::PeerUnreadable
            | C::Pool
            | C::Broken
            | C::SetupFailed
            | C::Format
            | C::Disk
            | C::Index
            | C::Register
            | C::State
            | C::Unrecognised => 500,
            C::TooLate
            | C::PeerFence
            | C::NotLead
            | C::MembershipChanged
            | C::NoDocument
            | C::PeerLost
            | C::PoolFailed
            | C::Stopping
            | C::ImportUnknown
            | C::SettingUp
            | C::NoAnswer
            | C::NoPeer => 503,
        }
    }

    /// Whether a change of the document that was refused with this code was certainly not made. `false` = that is not
    /// certain, for instance because the lead changed or its answer was lost while it was decided; also for codes with
    /// which no change is refused.
    #[must_use]
    pub fn change_certainly_not_made(self) -> bool {
        use RefusalCode as C;
        match self {
            // The rules of the document refused it, or it was never begun.
            C::BadName
            | C::NameExists
            | C::UnknownName
            | C::DoesNotFit
            | C::VolumeInUse
            | C::ImageComing
            | C::NoImage
            | C::DiskTwice
            | C::VmRunning
            | C::VmChanged
            | C::PeerFence
            | C::OutOfRange
            | C::NotWholeMib
            | C::BadText
            | C::TooMany
            | C::NoNode
            | C::TooLarge
            | C::TooLate
            | C::NotLead
            | C::PoolFailed => true,
            C::MembershipChanged
            | C::NoDocument
            | C::PeerLost
            | C::PeerUnreadable
            | C::Pool
            | C::Stopping
            | C::Broken
            | C::BadRequest
            | C::Busy
            | C::OtherNode
            | C::ImportFailed
            | C::ImportUnknown
            | C::NotSetUp
            | C::AlreadySetUp
            | C::SettingUp
            | C::SetupFailed
            | C::NoDisk
            | C::UnknownDisk
            | C::DiskOfPair
            | C::NoPoolDisk
            | C::Format
            | C::Disk
            | C::Index
            | C::Register
            | C::State
            | C::PairComplete
            | C::NoOffer
            | C::SeveralOffers
            | C::NoAnswer
            | C::Pairing
            | C::WrongCode
            | C::CodeExpired
            | C::NoCodeOpen
            | C::CodeVoid
            | C::Witness
            | C::Confirm
            | C::ConfirmLoss
            | C::NoPeer
            | C::Proving
            | C::Unrecognised => false,
        }
    }
}

impl From<&dyad_desired::Refusal> for RefusalCode {
    fn from(refusal: &dyad_desired::Refusal) -> Self {
        use dyad_desired::Refusal as R;
        match refusal {
            R::BadName { .. } => Self::BadName,
            R::NameExists { .. } => Self::NameExists,
            R::Unknown { .. } => Self::UnknownName,
            R::DoesNotFit { .. } | R::TooManyCpus { .. } => Self::DoesNotFit,
            R::VolumeInUse { .. } => Self::VolumeInUse,
            R::ImageComing { .. } => Self::ImageComing,
            R::NoImage { .. } => Self::NoImage,
            R::DiskTwice { .. } => Self::DiskTwice,
            R::VmRunning { .. } => Self::VmRunning,
            R::VmChanged { .. } => Self::VmChanged,
            R::OutOfRange { .. } => Self::OutOfRange,
            R::NotWholeMib { .. } => Self::NotWholeMib,
            R::BadText { .. } => Self::BadText,
            R::TooMany { .. } => Self::TooMany,
            R::NoNode { .. } => Self::NoNode,
            R::TooLarge { .. } => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_has_its_own_word_and_is_read_back_from_it() {
        let words: BTreeSet<_> = RefusalCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), RefusalCode::ALL.len());
        for code in RefusalCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.word()));
            assert_eq!(serde_json::from_str::<RefusalCode>(&text).unwrap(), *code);
        }
    }

    #[test]
    fn a_word_of_another_version_is_unrecognised_and_promises_nothing() {
        let code: RefusalCode = serde_json::from_str("\"from-the-future\"").unwrap();
        assert_eq!(code, RefusalCode::Unrecognised);
        assert!(!code.change_certainly_not_made());
    }

    /// A request that may succeed unchanged a moment later must never look like the caller's fault.
    #[test]
    fn a_retryable_refusal_is_503() {
        use RefusalCode as C;
        for code in [
            C::Stopping,
            C::MembershipChanged,
            C::NotLead,
            C::NoDocument,
            C::PeerLost,
            C::TooLate,
            C::NoPeer,
            C::PeerFence,
        ] {
            assert_eq!(code.http_status(), 503, "{code}");
        }
    }

    #[test]
    fn a_refused_reply_has_tag_code_and_sentence_in_one_object() {
        let reply = crate::Reply::refused(RefusalCode::NameExists, "It is taken.");
        let line = serde_json::to_string(&reply).unwrap();
        assert_eq!(line, r#"{"reply":"refused","code":"name-exists","sentence":"It is taken."}"#);
        let crate::Reply::Refused(back) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(back.code, RefusalCode::NameExists);
    }
}
