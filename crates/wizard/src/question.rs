//! The list of setup questions, which all front ends use.

use crate::choices::{Addressing, ERASE_WORD, Role, WitnessAnswer};
use crate::{Answers, DiskContent, Link, MAX_PEER_LINKS, QuestionId, Surroundings};

/// One entry of a [`Kind::Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The answer that is stored.
    pub value: &'static str,
    /// The text that people read.
    pub label: &'static str,
}

/// The kind of answer that a question expects. The answer of every kind is one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The `value` of exactly one entry.
    Choice(&'static [Choice]),
    /// One or more paths of [`Surroundings::disks`], separated by spaces.
    Disks,
    /// One name of [`Surroundings::ports`].
    Port,
    /// One or more names of [`Surroundings::links`], separated by spaces.
    Links,
    /// One `pair_id` of [`Surroundings::offers`].
    Offer,
    /// A line of text.
    Text,
    /// A line that is not shown while it is typed.
    Secret,
}

/// A setup question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub id: QuestionId,
    /// The question's key in the seed file, in the API and in problems.
    pub key: &'static str,
    /// Title on a screen, at most 30 characters.
    pub title: &'static str,
    /// Explanation of one or two sentences, at most 160 characters.
    pub help: &'static str,
    pub kind: Kind,
    /// Whether the question is asked, given the answers to earlier questions.
    pub asked: fn(&Answers, &Surroundings) -> bool,
}

const ROLES: &[Choice] = &[
    Choice { value: Role::First.word(), label: "First node: begin a new pair" },
    Choice { value: Role::Join.word(), label: "Join: become the second node of a pair" },
];
const NETWORKS: &[Choice] = &[
    Choice { value: Addressing::Dhcp.word(), label: "Automatic (DHCP)" },
    Choice { value: Addressing::Static.word(), label: "A fixed address" },
];

fn always(_: &Answers, _: &Surroundings) -> bool {
    true
}
fn is_first_node(a: &Answers, _: &Surroundings) -> bool {
    Role::of(a) == Some(Role::First)
}
fn is_joining(a: &Answers, _: &Surroundings) -> bool {
    Role::of(a) == Some(Role::Join)
}
fn several_offers(a: &Answers, s: &Surroundings) -> bool {
    is_joining(a, s) && s.offers.len() > 1
}
fn has_ports(_: &Answers, s: &Surroundings) -> bool {
    !s.ports.is_empty()
}
fn several_ports(_: &Answers, s: &Surroundings) -> bool {
    s.ports.len() > 1
}
fn has_static_address(a: &Answers, s: &Surroundings) -> bool {
    has_ports(a, s) && Addressing::of(a) == Some(Addressing::Static)
}
fn several_links(a: &Answers, s: &Surroundings) -> bool {
    link_candidates(a, s).count() > 1
}
fn names_a_witness(a: &Answers, s: &Surroundings) -> bool {
    is_first_node(a, s) && matches!(WitnessAnswer::of(a), Some(WitnessAnswer::Address(_)))
}

/// The management port, if it was chosen or if there is only one to choose.
pub(crate) fn management_port<'a>(answers: &'a Answers, surroundings: &'a Surroundings) -> Option<&'a str> {
    answers.get(QuestionId::Port).or(match surroundings.ports.as_slice() {
        [only] => Some(only),
        _ => None,
    })
}

/// The ports that may belong to the peer link: all of [`Surroundings::links`] but the management port.
pub(crate) fn link_candidates<'a>(
    answers: &'a Answers,
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = &'a Link> {
    let taken = management_port(answers, surroundings);
    surroundings.links.iter().filter(move |link| Some(link.name.as_str()) != taken)
}

/// All questions, in the order in which they are asked.
pub const QUESTIONS: &[Question] = &[
    Question {
        id: QuestionId::Role,
        key: "role",
        title: "First node or second",
        help: "The first node begins a new pair. The second one joins it and needs the code that the first one shows.",
        kind: Kind::Choice(ROLES),
        asked: always,
    },
    Question {
        id: QuestionId::Offer,
        key: "offer",
        title: "Which pair",
        help: "More than one first node was heard. Choose the pair this node shall join.",
        kind: Kind::Offer,
        asked: several_offers,
    },
    Question {
        id: QuestionId::Code,
        key: "code",
        title: "Pairing code",
        help: "The six digits that the first node shows on its screen and web page. They are valid for ten minutes.",
        kind: Kind::Text,
        asked: is_joining,
    },
    Question {
        id: QuestionId::Disks,
        key: "disks",
        title: "Disks for the pool",
        help: "These disks will hold the volumes. Everything on them is erased.",
        kind: Kind::Disks,
        asked: always,
    },
    Question {
        id: QuestionId::Erase,
        key: "erase",
        title: "Confirm what is erased",
        help: "Type the word erase and the names of the disks, exactly as shown.",
        kind: Kind::Text,
        asked: always,
    },
    Question {
        id: QuestionId::Port,
        key: "port",
        title: "Management port",
        help: "The network port on which this node is administered.",
        kind: Kind::Port,
        asked: several_ports,
    },
    Question {
        id: QuestionId::Network,
        key: "network",
        title: "Management address",
        help: "How the management port gets its address.",
        kind: Kind::Choice(NETWORKS),
        asked: has_ports,
    },
    Question {
        id: QuestionId::Address,
        key: "address",
        title: "Fixed address",
        help: "The address with its prefix length, such as 192.0.2.10/24.",
        kind: Kind::Text,
        asked: has_static_address,
    },
    Question {
        id: QuestionId::Gateway,
        key: "gateway",
        title: "Gateway",
        help: "The address of the router. Leave it empty if there is none.",
        kind: Kind::Text,
        asked: has_static_address,
    },
    Question {
        id: QuestionId::Dns,
        key: "dns",
        title: "Name servers",
        help: "Addresses separated by spaces. Leave it empty if there are none.",
        kind: Kind::Text,
        asked: has_static_address,
    },
    Question {
        id: QuestionId::PeerLinks,
        key: "peer_links",
        title: "Peer link",
        help: "The ports whose cables lead to the other node. Two or more are best.",
        kind: Kind::Links,
        asked: several_links,
    },
    Question {
        id: QuestionId::Pair,
        key: "pair",
        title: "Name of the pair",
        help: "Lower-case letters, digits and hyphens.",
        kind: Kind::Text,
        asked: is_first_node,
    },
    Question {
        id: QuestionId::Node,
        key: "node",
        title: "Name of this node",
        help: "Lower-case letters, digits and hyphens.",
        kind: Kind::Text,
        asked: always,
    },
    Question {
        id: QuestionId::Password,
        key: "password",
        title: "Administrator password",
        help: "8 to 128 characters. It is the same on both nodes.",
        kind: Kind::Secret,
        asked: is_first_node,
    },
    Question {
        id: QuestionId::Witness,
        key: "witness",
        title: "Witness",
        help: "Host name or address of the witness, or the word later. Without a witness the pair is not protected.",
        kind: Kind::Text,
        asked: is_first_node,
    },
    Question {
        id: QuestionId::WitnessCode,
        key: "witness_code",
        title: "Code of the witness",
        help: "The one-time code that the witness printed for this pair.",
        kind: Kind::Text,
        asked: names_a_witness,
    },
];

#[must_use]
pub fn question(id: QuestionId) -> &'static Question {
    // The list has one entry for each id, in the order of the ids: tested by `tests/questions.rs`.
    &QUESTIONS[id as usize]
}

/// The next question to ask: the first that applies and has no answer. `None`: all are answered, and the front end
/// shows the summary.
#[must_use]
pub fn next(answers: &Answers, surroundings: &Surroundings) -> Option<&'static Question> {
    QUESTIONS.iter().find(|q| (q.asked)(answers, surroundings) && answers.get(q.id).is_none())
}

/// Whether an answer to the question is accepted: if the question is asked, and also if it is not asked only because
/// there is one choice.
pub(crate) fn allowed(id: QuestionId, answers: &Answers, surroundings: &Surroundings) -> bool {
    (question(id).asked)(answers, surroundings)
        || match id {
            QuestionId::Offer => is_joining(answers, surroundings),
            QuestionId::Port => !surroundings.ports.is_empty(),
            QuestionId::PeerLinks => !surroundings.links.is_empty(),
            _ => false,
        }
}

/// The answer that [`plan`](crate::plan()) uses for a question without an answer. `None`: there is no default.
#[must_use]
pub fn default(id: QuestionId, answers: &Answers, surroundings: &Surroundings) -> Option<String> {
    match id {
        QuestionId::Network => Some(Addressing::Dhcp.word().into()),
        QuestionId::Gateway | QuestionId::Dns => Some(String::new()),
        QuestionId::Port => surroundings.ports.first().cloned(),
        QuestionId::PeerLinks => {
            let up = link_candidates(answers, surroundings).filter(|l| l.up).take(MAX_PEER_LINKS);
            let names: Vec<_> = up.map(|l| l.name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(" "))
        }
        QuestionId::Node => match Role::of(answers) {
            Some(Role::First) => Some("node-a".into()),
            Some(Role::Join) => Some("node-b".into()),
            None => None,
        },
        _ => None,
    }
}

/// The text that a front end fills in before the person types: the most likely answer, otherwise the default.
#[must_use]
pub fn suggestion(id: QuestionId, answers: &Answers, surroundings: &Surroundings) -> Option<String> {
    match id {
        QuestionId::Disks => {
            let blank = surroundings.disks.iter().filter(|d| d.content == DiskContent::Blank);
            let paths: Vec<_> = blank.map(|d| d.path.as_str()).collect();
            (!paths.is_empty()).then(|| paths.join(" "))
        }
        QuestionId::Role => {
            let role = if surroundings.offers.is_empty() { Role::First } else { Role::Join };
            Some(role.word().into())
        }
        QuestionId::Pair => Some("pair".into()),
        _ => default(id, answers, surroundings),
    }
}

/// The text that a person must type to confirm that these disks are erased, such as `erase vdb vdc`. `disks` are paths
/// separated by spaces.
#[must_use]
pub fn confirmation(disks: &str) -> String {
    let names = disks.split_whitespace().map(|path| path.rsplit('/').next().unwrap_or(path));
    std::iter::once(ERASE_WORD).chain(names).collect::<Vec<_>>().join(" ")
}
