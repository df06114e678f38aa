//! Types of setup. The request has the keys of the seed file.

use dyad_wizard::{Answers, DiskContent, Kind, QUESTIONS, Surroundings, suggestion};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ApiError;

/// How far setup is. Once the node belongs to a pair, only `phase` and `task` are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetupReply {
    /// How far the node is.
    pub phase: SetupPhase,
    /// The running or last setup since this program started.
    pub task: Option<TaskView>,
    /// Every question, in the order of asking; the answers decide which of them are asked.
    pub questions: Vec<QuestionView>,
    /// Disks that could become pool disks.
    pub disks: Vec<DiskView>,
    /// Ports that could carry management.
    pub ports: Vec<String>,
    /// Ports that could be peer links.
    pub links: Vec<LinkView>,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SetupPhase {
    /// Not set up: waits for answers.
    Blank,
    SettingUp,
    /// Belongs to a pair.
    Running,
    /// Cannot work; the status sentence says why.
    Broken,
}

/// A setup that runs or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Whether it has ended, successfully or not.
    pub finished: bool,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// Its steps, in order.
    pub steps: Vec<StepView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// What it does, a few words.
    pub text: String,
    /// How far it is.
    pub state: StepState,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// The step has not begun.
    Waiting,
    Running,
    Done,
    /// Failed; the task's error says why.
    Failed,
}

/// The answers, with the keys of the seed file. An unknown key is refused by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SetupRequest {
    /// "first" or "join".
    pub role: Option<String>,
    /// Id of the pair to join, if several are heard.
    pub offer: Option<String>,
    /// The pairing code, when joining.
    pub code: Option<String>,
    /// Paths of the disks for the pool.
    pub disks: Option<Vec<String>>,
    /// The typed confirmation: "erase" and the names of the disks, such as "erase vdb vdc".
    pub erase: Option<String>,
    /// The management port.
    pub port: Option<String>,
    /// "dhcp" or "static".
    pub network: Option<String>,
    /// The fixed address with prefix length.
    pub address: Option<String>,
    pub gateway: Option<String>,
    /// The name servers.
    pub dns: Option<Vec<String>>,
    /// The ports of the peer link.
    pub peer_links: Option<Vec<String>>,
    pub pair: Option<String>,
    pub node: Option<String>,
    /// The administrator's password.
    pub password: Option<String>,
    /// Address of the witness, or "later".
    pub witness: Option<String>,
    /// The witness's one-time code.
    pub witness_code: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuestionView {
    /// Its key in the seed file.
    pub key: String,
    /// A few words.
    pub title: String,
    /// One or two sentences.
    pub help: String,
    /// "choice", "disks", "port", "links", "offer", "text" or "secret".
    pub kind: String,
    /// The answers to choose from.
    pub choices: Vec<ChoiceView>,
    /// The suggested answer.
    pub suggestion: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceView {
    pub value: String,
    /// Its text on the page.
    pub label: String,
}

/// A disk that could become a pool disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskView {
    pub path: String,
    /// Model and serial number.
    pub model: String,
    pub bytes: u64,
    /// Its content: "blank", or a few words.
    pub content: String,
    /// Whether it may be chosen. A disk of another pair may not.
    pub usable: bool,
}

/// A port that could be a peer link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// Name of the port.
    pub name: String,
    /// Whether the cable carries a signal.
    pub up: bool,
}

/// A first node that waits for its second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    /// Id of the pair, in hexadecimal: the answer to `offer`.
    pub pair_id: String,
    pub pair: String,
    /// Name of its first node.
    pub node: String,
    /// The port on which it is heard.
    pub link: String,
}

/// The code with which the second node joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PairingCodeReply {
    /// Six digits, without a space; typed at the second node before `expires_s` has passed.
    pub code: String,
    /// Seconds until it expires.
    pub expires_s: u64,
}

/// Request to enrol at a witness.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessRequest {
    /// Host name or address; the port is 7403 unless given as `host:port`.
    pub address: String,
    /// The one-time code that the witness printed.
    pub code: String,
}

/// Request to erase this node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// The node's name, such as "left", if the other node holds all data and answers; otherwise the names of pair and
    /// node, such as "office/left".
    pub confirm: String,
}

/// Request to erase a disk that carries data of a pair.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseDiskRequest {
    /// Its path or the last part of it.
    pub disk: String,
    /// The last part of its path, such as "vdb".
    pub confirm: String,
}

/// The questions as the wire shows them, with suggestions for a node that has no answer yet.
#[must_use]
pub fn questions(surroundings: &Surroundings) -> Vec<QuestionView> {
    let none = Answers::new();
    let view = |q: &dyad_wizard::Question| {
        let (kind, choices): (_, &[dyad_wizard::Choice]) = match q.kind {
            Kind::Choice(choices) => ("choice", choices),
            Kind::Disks => ("disks", &[]),
            Kind::Port => ("port", &[]),
            Kind::Links => ("links", &[]),
            Kind::Offer => ("offer", &[]),
            Kind::Text => ("text", &[]),
            Kind::Secret => ("secret", &[]),
        };
        let choices = choices.iter().map(|c| ChoiceView { value: c.value.into(), label: c.label.into() });
        QuestionView {
            key: q.key.into(),
            title: q.title.into(),
            help: q.help.into(),
            kind: kind.into(),
            choices: choices.collect(),
            suggestion: suggestion(q.id, &none, surroundings),
        }
    };
    QUESTIONS.iter().map(view).collect()
}

impl From<&dyad_wizard::Disk> for DiskView {
    fn from(disk: &dyad_wizard::Disk) -> Self {
        let (content, usable) = match &disk.content {
            DiskContent::Blank => ("blank".to_owned(), true),
            DiskContent::Foreign(what) => (what.clone(), true),
            DiskContent::Pool { pair, node, .. } => (format!("pool disk of the pair {pair}, node {node}"), false),
        };
        DiskView { path: disk.path.clone(), model: disk.model.clone(), bytes: disk.bytes, content, usable }
    }
}

impl From<&dyad_wizard::Link> for LinkView {
    fn from(link: &dyad_wizard::Link) -> Self {
        LinkView { name: link.name.clone(), up: link.up }
    }
}

impl From<dyad_control::Offer> for OfferView {
    fn from(offer: dyad_control::Offer) -> Self {
        OfferView { pair_id: offer.pair_id, pair: offer.pair, node: offer.node, link: offer.link }
    }
}
