//! JSON types of setup and erasing. The setup request has the keys of the seed file.

use dyad_wizard::{Answers, DiskContent, Kind, QUESTIONS, Surroundings, suggestion};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ApiError;

/// The state of setup. Only a blank node fills the lists; on any other node they are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetupReply {
    /// State of this node, from blank to running.
    pub phase: SetupPhase,
    /// The running or last setup since the node's management service started. A refused seed file is shown as a failed
    /// setup without steps.
    pub task: Option<TaskView>,
    /// All questions in the order of asking. Some of them are asked only after certain answers.
    pub questions: Vec<QuestionView>,
    /// Disks that could become pool disks.
    pub disks: Vec<DiskView>,
    /// Ports that could carry management.
    pub ports: Vec<String>,
    /// Ports that could be peer links.
    pub links: Vec<LinkView>,
}

/// State of a node, from blank to running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SetupPhase {
    /// Not set up: the node waits for the answers to the questions.
    Blank,
    SettingUp,
    /// Set up: the node belongs to a pair and has its pool open.
    Running,
    /// The node cannot work, or its storage service does not answer; the status sentence says why.
    Broken,
}

/// A setup that runs or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Whether the setup has ended, successfully or not.
    pub finished: bool,
    /// The error of the failed step; absent unless the setup failed.
    pub error: Option<ApiError>,
    /// The steps of the setup, in the order of execution.
    pub steps: Vec<StepView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// A few words that name the step, such as "open the pool".
    pub text: String,
    /// Whether the step waits, runs, is done or has failed.
    pub state: StepState,
}

/// Progress of a step of setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// The step has not begun.
    Waiting,
    Running,
    Done,
    /// The step has failed; `error` of the task says why.
    Failed,
}

/// The answers to the questions of setup, with the keys of the seed file. An unknown key is refused with its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SetupRequest {
    /// "first" or "join".
    pub role: Option<String>,
    /// Id of the pair to join; needed only if several first nodes send offers.
    pub offer: Option<String>,
    /// The pairing code of the first node; only when joining.
    pub code: Option<String>,
    /// Paths of the disks for the pool.
    pub disks: Option<Vec<String>>,
    /// The typed confirmation: "erase" and the names of the disks, such as "erase vdb vdc".
    pub erase: Option<String>,
    /// Name of the network port for management.
    pub port: Option<String>,
    /// "dhcp" or "static".
    pub network: Option<String>,
    /// The static address with its prefix length, such as "192.0.2.10/24".
    pub address: Option<String>,
    pub gateway: Option<String>,
    /// Addresses of the name servers.
    pub dns: Option<Vec<String>>,
    /// Names of the network ports that connect the two nodes.
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
    /// Key of the question in the seed file and in the setup request.
    pub key: String,
    /// The question in a few words.
    pub title: String,
    /// An explanation of one or two sentences.
    pub help: String,
    /// Form of the answer: "choice", "disks", "port", "links", "offer", "text" or "secret".
    pub kind: String,
    /// The possible answers; empty unless `kind` is "choice".
    pub choices: Vec<ChoiceView>,
    /// The suggested answer, as a text to be changed or accepted.
    pub suggestion: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceView {
    pub value: String,
    /// The text that a person sees for this choice.
    pub label: String,
}

/// A disk that could become a pool disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskView {
    pub path: String,
    /// Model and serial number.
    pub model: String,
    pub bytes: u64,
    /// Content of the disk: "blank", or a few words such as "ext4".
    pub content: String,
    /// Whether the disk may be chosen. A disk that holds data of a pair must be erased first.
    pub usable: bool,
}

/// A port that could be a peer link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// Name of the port.
    pub name: String,
    /// Whether the port detects a carrier, so that a cable is connected.
    pub up: bool,
}

/// A first node that announces on the peer link that it waits for its second node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    /// Id of the pair, in hexadecimal: the answer to `offer`.
    pub pair_id: String,
    pub pair: String,
    /// Name of the pair's first node.
    pub node: String,
    /// Name of this node's port on which the announcement arrives.
    pub link: String,
}

/// The code with which the second node joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PairingCodeReply {
    /// Six digits without a space. The code is typed at the second node before `expires_s` has passed.
    pub code: String,
    /// Seconds until the code expires.
    pub expires_s: u64,
}

/// Request to enrol at a witness.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessRequest {
    /// Host name or address of the witness; the port is 7403 unless given as `host:port`.
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
    /// Path of the disk, such as "/dev/vdb", or its last part.
    pub disk: String,
    /// The confirmation: the last part of the disk's path, such as "vdb".
    pub confirm: String,
}

/// All questions for [`SetupReply`], with the suggestions for a wizard without any answer yet.
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
