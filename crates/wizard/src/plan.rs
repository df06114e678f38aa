//! The complete answers as typed values, for the program that carries out setup.

use std::net::IpAddr;

use crate::choices::{Role, WitnessAnswer};
use crate::{
    Answers, MAX_PEER_LINKS, Problem, QUESTIONS, QuestionId, Surroundings, check, default, question,
    question::{allowed, link_candidates},
};

/// The work of setup: the complete and checked answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupPlan {
    /// Creates a new pair.
    First {
        pair: String,
        node: String,
        /// Paths of the disks to format; their erasing was confirmed.
        disks: Vec<String>,
        password: String,
        /// `None`: the node has no port that Dyad manages.
        network: Option<NetworkSettings>,
        /// `None`: the pair begins without a witness; it can be enrolled at one later.
        witness: Option<WitnessPlan>,
    },
    /// Joins a pair as the second node.
    Join {
        node: String,
        /// Paths of the disks to format; their erasing was confirmed.
        disks: Vec<String>,
        /// The pairing code, digits only.
        code: String,
        /// Id of the pair to join, in hexadecimal; `None` = only one pair is heard.
        pair_id: Option<String>,
        /// `None`: the node has no port that Dyad manages.
        network: Option<NetworkSettings>,
    },
}

/// The answers about the network: management port, its address, and the ports of the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Name of the management port.
    pub port: String,
    /// The fixed address; `None`: DHCP.
    pub fixed: Option<StaticAddress>,
    /// Names of the ports of the peer link; empty: every other port.
    pub peer_links: Vec<String>,
}

/// A fixed address of the management port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    pub address: IpAddr,
    /// Prefix length, in bits.
    pub prefix: u8,
    /// `None`: no default route.
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
}

/// The witness to enrol with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPlan {
    /// Address and port on which the witness listens, as `host:port`.
    pub address: String,
    /// The one-time code that the witness printed.
    pub code: String,
}

/// Checks all answers again, adds defaults for questions without an answer, and returns the plan.
///
/// # Errors
/// The first [`Problem`], in the order of the questions.
pub fn plan(answers: &Answers, surroundings: &Surroundings) -> Result<SetupPlan, Problem> {
    // Disks and ports may have changed since the answers were checked first.
    let mut all = Answers::new();
    for question in QUESTIONS {
        match answers.get(question.id) {
            Some(text) if allowed(question.id, &all, surroundings) => all.set(question.id, text, surroundings)?,
            Some(_) => return Err(Problem::UnfittingKey(question.key)),
            None if (question.asked)(&all, surroundings) => {
                let missing = Problem::Missing { key: question.key, title: question.title };
                let text = default(question.id, &all, surroundings).ok_or(missing)?;
                all.set(question.id, &text, surroundings)?;
            }
            None => {}
        }
    }
    let missing = |id: QuestionId| Problem::Missing { key: question(id).key, title: question(id).title };
    let text = |id: QuestionId| all.get(id).map(str::to_owned).ok_or_else(|| missing(id));
    let list =
        |id: QuestionId| all.get(id).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let network = network(&all, surroundings)?;
    let (node, disks) = (text(QuestionId::Node)?, list(QuestionId::Disks));
    if Role::of(&all) == Some(Role::Join) {
        let pair_id = all.get(QuestionId::Offer).map(str::to_owned);
        return Ok(SetupPlan::Join { node, disks, code: text(QuestionId::Code)?, pair_id, network });
    }
    let witness = match WitnessAnswer::of(&all).ok_or_else(|| missing(QuestionId::Witness))? {
        WitnessAnswer::Later => None,
        WitnessAnswer::Address(address) => Some(WitnessPlan { address, code: text(QuestionId::WitnessCode)? }),
    };
    Ok(SetupPlan::First {
        pair: text(QuestionId::Pair)?,
        node,
        disks,
        password: text(QuestionId::Password)?,
        network,
        witness,
    })
}

/// The network part of the plan; `None` if Dyad manages no port of this node.
fn network(all: &Answers, surroundings: &Surroundings) -> Result<Option<NetworkSettings>, Problem> {
    let Some(port) = all.get(QuestionId::Port).or(surroundings.ports.first().map(String::as_str)) else {
        return Ok(None);
    };
    let links = match all.get(QuestionId::PeerLinks) {
        Some(links) => links.split_whitespace().map(str::to_owned).collect(),
        None => link_candidates(all, surroundings)
            .map(|l| l.name.clone())
            .filter(|l| l != port)
            .take(MAX_PEER_LINKS)
            .collect(),
    };
    let fixed = match all.get(QuestionId::Address) {
        None => None,
        Some(text) => {
            let (address, prefix) = check::parse_prefixed(text)?;
            let gateway = all.get(QuestionId::Gateway).and_then(|g| g.parse().ok());
            let dns = all.get(QuestionId::Dns).unwrap_or_default();
            let dns = dns.split_whitespace().filter_map(|d| d.parse().ok()).collect();
            Some(StaticAddress { address, prefix, gateway, dns })
        }
    };
    Ok(Some(NetworkSettings { port: port.to_owned(), fixed, peer_links: links }))
}
