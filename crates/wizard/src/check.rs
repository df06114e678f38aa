//! The check of one typed answer, which gives its stored form: trimmed, complete paths, lists with single spaces.

use std::net::IpAddr;

use dyad_desired::names;
use dyad_types::{DiskContent, WITNESS_PORT};

use crate::choices::WitnessAnswer;
use crate::{
    Answers, Kind, MAX_PEER_LINKS, PAIRING_CODE_DIGITS, PASSWORD_LENGTH, Problem, QuestionId, Surroundings,
    confirmation, question, question::management_port,
};

/// Checks `text` as the answer to the question `id` and returns its stored form. `answers` are the answers to earlier
/// questions.
pub(crate) fn check(
    id: QuestionId,
    text: &str,
    answers: &Answers,
    surroundings: &Surroundings,
) -> Result<String, Problem> {
    let question = question(id);
    // A password may begin or end with a space; other answers are trimmed.
    let text = if question.kind == Kind::Secret { text } else { text.trim() };
    if text.is_empty() && !matches!(id, QuestionId::Gateway | QuestionId::Dns) {
        return Err(Problem::Missing { key: question.key, title: question.title });
    }
    match id {
        QuestionId::Role | QuestionId::Network => choice(question.key, question.kind, text),
        QuestionId::Offer => pair_id(text, surroundings),
        QuestionId::Code => {
            let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
            let good = digits.len() == PAIRING_CODE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
            if good { Ok(digits) } else { Err(Problem::Code) }
        }
        QuestionId::Disks => disks(text, surroundings),
        QuestionId::Erase => {
            let wanted = confirmation(answers.get(QuestionId::Disks).unwrap_or_default());
            let typed = single_spaced(text);
            if typed == wanted { Ok(typed) } else { Err(Problem::NotConfirmed(wanted)) }
        }
        QuestionId::Port => match surroundings.ports.iter().find(|p| *p == text) {
            Some(port) => Ok(port.clone()),
            None => Err(Problem::NoPort(printable(text))),
        },
        QuestionId::PeerLinks => links(text, answers, surroundings),
        QuestionId::Address => parse_prefixed(text).map(|_| text.to_owned()),
        QuestionId::Gateway if text.is_empty() => Ok(String::new()),
        QuestionId::Gateway => address(text).map(|a| a.to_string()),
        QuestionId::Dns => {
            text.split_whitespace().try_for_each(|t| address(t).map(|_| ()))?;
            Ok(single_spaced(text))
        }
        QuestionId::Pair | QuestionId::Node => {
            names::check(text)?;
            Ok(text.to_owned())
        }
        QuestionId::Password => {
            let good = PASSWORD_LENGTH.contains(&text.chars().count()) && !text.chars().any(char::is_control);
            if good { Ok(text.to_owned()) } else { Err(Problem::Password) }
        }
        QuestionId::Witness => witness(text).map(WitnessAnswer::into_text),
        QuestionId::WitnessCode => {
            let good = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if good { Ok(text.to_owned()) } else { Err(Problem::WitnessCode) }
        }
    }
}

/// Parses an address with a prefix length, such as `192.0.2.10/24`. Addresses that no port can have are refused.
pub(crate) fn parse_prefixed(text: &str) -> Result<(IpAddr, u8), Problem> {
    let bad = || Problem::Address(printable(text));
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    if usable && (1..=longest).contains(&prefix) { Ok((address, prefix)) } else { Err(bad()) }
}

fn address(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::PlainAddress(printable(text)))
}

/// One word of a [`Kind::Choice`].
fn choice(key: &'static str, kind: Kind, text: &str) -> Result<String, Problem> {
    let Kind::Choice(choices) = kind else { return Ok(text.to_owned()) };
    if choices.iter().any(|c| c.value == text) {
        return Ok(text.to_owned());
    }
    let choices: Vec<_> = choices.iter().map(|c| c.value).collect();
    Err(Problem::NotAChoice { key, given: printable(text), choices: choices.join(" or ") })
}

/// The `pair_id` of a discovered pair, found by id or by name.
fn pair_id(text: &str, surroundings: &Surroundings) -> Result<String, Problem> {
    let offer = surroundings.offers.iter().find(|o| o.pair_id == text || o.pair == text);
    offer.map(|o| o.pair_id.clone()).ok_or_else(|| Problem::NoOffer(printable(text)))
}

/// The complete paths of the disks, found by path or by file name.
fn disks(text: &str, surroundings: &Surroundings) -> Result<String, Problem> {
    let mut paths: Vec<&str> = Vec::new();
    for path in text.split_whitespace() {
        let disk = surroundings.disks.iter().find(|d| d.path == path || file_name(&d.path) == path);
        let disk = disk.ok_or_else(|| Problem::NoDisk(printable(path)))?;
        if let DiskContent::Pool { pair, node, .. } = &disk.content {
            return Err(Problem::DiskOfPair { disk: disk.path.clone(), pair: pair.clone(), node: node.clone() });
        }
        if !paths.contains(&disk.path.as_str()) {
            paths.push(&disk.path);
        }
    }
    Ok(paths.join(" "))
}

/// The names of the ports for the peer link.
fn links(text: &str, answers: &Answers, surroundings: &Surroundings) -> Result<String, Problem> {
    let mut names: Vec<&str> = Vec::new();
    for name in text.split_whitespace() {
        if !surroundings.links.iter().any(|l| l.name == name) {
            return Err(Problem::NoPort(printable(name)));
        }
        if management_port(answers, surroundings) == Some(name) {
            return Err(Problem::PortTwice(name.to_owned()));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MAX_PEER_LINKS {
        return Err(Problem::TooManyLinks);
    }
    Ok(names.join(" "))
}

fn witness(text: &str) -> Result<WitnessAnswer, Problem> {
    let address = || host_port(text).map(WitnessAnswer::Address);
    WitnessAnswer::later(text).or_else(address).ok_or_else(|| Problem::Witness(printable(text)))
}

/// Parses a host name or an address, with or without a port; returns `host:port`. An IPv6 address with a port needs
/// brackets.
fn host_port(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(std::net::SocketAddr::new(address, WITNESS_PORT).to_string());
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return (socket.port() != 0).then(|| socket.to_string());
    }
    let (host, port) = match text.split_once(':') {
        Some((host, given)) => (host, given.parse().ok().filter(|p| *p != 0)?),
        None => (text, WITNESS_PORT),
    };
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A text of digits and dots only is a mistyped address, not a host name.
    let named = host.bytes().any(|b| b.is_ascii_alphabetic());
    (host.len() <= 253 && named && host.split('.').all(label)).then(|| format!("{host}:{port}"))
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The text without control characters, at most 60 characters, for a sentence.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// The two answers for an enrolment at a witness: its address and its one-time code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WitnessEnrolment<T> {
    pub address: T,
    pub code: T,
}

/// Checks the address and the one-time code of a witness that is enrolled after setup.
///
/// # Errors
/// The same [`Problem`]s as for the wizard's own questions.
pub fn check_enrolment(
    WitnessEnrolment { address, code }: WitnessEnrolment<&str>,
) -> Result<WitnessEnrolment<String>, Problem> {
    let (none, nothing) = (Answers::new(), Surroundings::default());
    let address = check(QuestionId::Witness, address, &none, &nothing)?;
    if WitnessAnswer::later(&address).is_some() {
        return Err(Problem::Witness(address));
    }
    Ok(WitnessEnrolment { address, code: check(QuestionId::WitnessCode, code, &none, &nothing)? })
}
