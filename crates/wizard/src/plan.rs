//! The answers as types, for the program that carries them out.

use std::net::IpAddr;

use crate::{
    Answers, Id, LINKS, Problem, QUESTIONS, Surroundings, check, default, question,
    question::{allowed, others},
};

/// What setup shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Begin a new pair.
    First {
        /// Name of the pair.
        pair: String,
        /// Name of this node.
        node: String,
        /// Paths of the disks to format; their erasing was confirmed.
        disks: Vec<String>,
        /// The administrator's password.
        password: String,
        /// The network; `None` = it is not ours to set up.
        network: Option<Network>,
        /// The witness; `None` = later.
        witness: Option<WitnessPlan>,
    },
    /// Become the second node.
    Join {
        /// Name of this node.
        node: String,
        /// Paths of the disks to format; their erasing was confirmed.
        disks: Vec<String>,
        /// The pairing code.
        code: String,
        /// Which pair, if it was asked.
        offer: Option<String>,
        /// The network; `None` = it is not ours to set up.
        network: Option<Network>,
    },
}

/// The management port and the peer link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The management port.
    pub port: String,
    /// Its fixed address; `None` = DHCP.
    pub fixed: Option<Static>,
    /// The ports of the peer link; empty = every other port.
    pub peer_links: Vec<String>,
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length, in bits.
    pub prefix: u8,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
}

/// Where the tie vote goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPlan {
    /// `host:port`.
    pub address: String,
    /// The one-time code.
    pub code: String,
}

/// Checks all answers together, fills in the defaults, and gives the plan.
///
/// # Errors
/// The first [`Problem`], in the order of the questions.
pub fn plan(answers: &Answers, surroundings: &Surroundings) -> Result<Plan, Problem> {
    // Check again from the start: disks and neighbours may have changed since the answers were typed.
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
    let text = |id: Id| {
        let missing = Problem::Missing { key: question(id).key, title: question(id).title };
        all.get(id).map(str::to_owned).ok_or(missing)
    };
    let list = |id: Id| all.get(id).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let network = network(&all, surroundings)?;
    let (node, disks) = (text(Id::Node)?, list(Id::Disks));
    if all.get(Id::Role) == Some("join") {
        let offer = all.get(Id::Offer).map(str::to_owned);
        return Ok(Plan::Join { node, disks, code: text(Id::Code)?, offer, network });
    }
    let witness = match text(Id::Witness)?.as_str() {
        "later" => None,
        address => Some(WitnessPlan { address: address.to_owned(), code: text(Id::WitnessCode)? }),
    };
    Ok(Plan::First { pair: text(Id::Pair)?, node, disks, password: text(Id::Password)?, network, witness })
}

fn network(all: &Answers, surroundings: &Surroundings) -> Result<Option<Network>, Problem> {
    let Some(port) = all.get(Id::Port).or(surroundings.ports.first().map(String::as_str)) else {
        return Ok(None);
    };
    let links = match all.get(Id::PeerLinks) {
        Some(links) => links.split_whitespace().map(str::to_owned).collect(),
        None => others(all, surroundings).map(|l| l.name.clone()).filter(|l| l != port).take(LINKS).collect(),
    };
    let fixed = match all.get(Id::Address) {
        None => None,
        Some(text) => {
            let (address, prefix) = check::prefixed(text)?;
            let gateway = all.get(Id::Gateway).and_then(|g| g.parse().ok());
            let dns = all.get(Id::Dns).unwrap_or_default();
            let dns = dns.split_whitespace().filter_map(|d| d.parse().ok()).collect();
            Some(Static { address, prefix, gateway, dns })
        }
    };
    Ok(Some(Network { port: port.to_owned(), fixed, peer_links: links }))
}
