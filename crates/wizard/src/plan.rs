//! The answers as types, for the program that carries them out.

use std::net::IpAddr;

use crate::choices::{Role, WitnessAnswer};
use crate::{
    Answers, Id, LINKS, Problem, QUESTIONS, Surroundings, check, default, question,
    question::{allowed, link_candidates},
};

/// What setup has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Creates a new pair.
    First {
        pair: String,
        node: String,
        /// Paths of the disks to format; their erasing was confirmed.
        disks: Vec<String>,
        password: String,
        /// `None`: the node has no port that Dyad manages.
        network: Option<NetworkSettings>,
        /// `None`: a witness is enrolled later.
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

/// The management port and the ports of the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Name of the management port.
    pub port: String,
    /// The fixed address; `None`: DHCP.
    pub fixed: Option<Static>,
    /// The ports of the peer link; empty: every other port.
    pub peer_links: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
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
    /// Where the witness listens, as `host:port`.
    pub address: String,
    /// The one-time code that the witness printed.
    pub code: String,
}

/// Checks all answers together, adds the defaults, and returns the plan.
///
/// # Errors
/// The first [`Problem`], in the order of the questions.
pub fn plan(answers: &Answers, surroundings: &Surroundings) -> Result<Plan, Problem> {
    // All answers are checked again: disks and ports may have changed since they were typed.
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
    let missing = |id: Id| Problem::Missing { key: question(id).key, title: question(id).title };
    let text = |id: Id| all.get(id).map(str::to_owned).ok_or_else(|| missing(id));
    let list = |id: Id| all.get(id).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let network = network(&all, surroundings)?;
    let (node, disks) = (text(Id::Node)?, list(Id::Disks));
    if Role::of(&all) == Some(Role::Join) {
        let pair_id = all.get(Id::Offer).map(str::to_owned);
        return Ok(Plan::Join { node, disks, code: text(Id::Code)?, pair_id, network });
    }
    let witness = match WitnessAnswer::of(&all).ok_or_else(|| missing(Id::Witness))? {
        WitnessAnswer::Later => None,
        WitnessAnswer::Address(address) => Some(WitnessPlan { address, code: text(Id::WitnessCode)? }),
    };
    Ok(Plan::First { pair: text(Id::Pair)?, node, disks, password: text(Id::Password)?, network, witness })
}

fn network(all: &Answers, surroundings: &Surroundings) -> Result<Option<NetworkSettings>, Problem> {
    let Some(port) = all.get(Id::Port).or(surroundings.ports.first().map(String::as_str)) else {
        return Ok(None);
    };
    let links = match all.get(Id::PeerLinks) {
        Some(links) => links.split_whitespace().map(str::to_owned).collect(),
        None => link_candidates(all, surroundings).map(|l| l.name.clone()).filter(|l| l != port).take(LINKS).collect(),
    };
    let fixed = match all.get(Id::Address) {
        None => None,
        Some(text) => {
            let (address, prefix) = check::parse_prefixed(text)?;
            let gateway = all.get(Id::Gateway).and_then(|g| g.parse().ok());
            let dns = all.get(Id::Dns).unwrap_or_default();
            let dns = dns.split_whitespace().filter_map(|d| d.parse().ok()).collect();
            Some(Static { address, prefix, gateway, dns })
        }
    };
    Ok(Some(NetworkSettings { port: port.to_owned(), fixed, peer_links: links }))
}
