//! The seed file: the answers as TOML, in a file on a FAT volume labelled `DYAD-SEED` or in the state directory. The
//! API accepts the same keys as JSON.
//!
//! ```toml
//! role = "first"
//! disks = ["/dev/vdb", "/dev/vdc"]
//! erase = "erase vdb vdc"
//! pair = "office"
//! node = "left"
//! password = "correct horse"
//! witness = "192.0.2.9:7403"
//! witness_code = "0123-4567"
//! ```

use crate::{Answers, Kind, Problem, QUESTIONS, Question, Surroundings, question::allowed};

/// Name of the seed file, in the root directory of the FAT volume or in the state directory.
pub const SEED_FILE: &str = "dyad-seed.toml";
/// Label of the FAT volume on which `dyad-node` looks for a seed file.
pub const SEED_LABEL: &str = "DYAD-SEED";

/// Reads and checks a seed file. A key with an empty text counts as not given.
///
/// # Errors
/// The [`Problem`] with the first wrong key, or [`Problem::Unreadable`] if the text is not TOML.
pub fn from_toml(text: &str, surroundings: &Surroundings) -> Result<Answers, Problem> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Problem::Unreadable(one_line(e.message())))?;
    let given = table.into_iter().map(|(key, value)| {
        let text = match value {
            toml::Value::String(text) => Some(text),
            toml::Value::Array(list) => joined(list.iter().map(toml::Value::as_str)),
            _ => None,
        };
        (key, text)
    });
    read(given.collect(), surroundings)
}

/// Reads and checks the JSON form of the same keys. A `null` or an empty text counts as not given.
///
/// # Errors
/// The [`Problem`] with the first wrong key, or [`Problem::Unreadable`] if the bytes are not JSON.
pub fn from_json(bytes: &[u8], surroundings: &Surroundings) -> Result<Answers, Problem> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|e| Problem::Unreadable(one_line(&e.to_string())))?;
    let given = object.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| {
        let text = match value {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Array(list) => joined(list.iter().map(serde_json::Value::as_str)),
            _ => None,
        };
        (key, text)
    });
    read(given.collect(), surroundings)
}

/// Writes the answers as a seed file, which contains the password in clear text.
#[must_use]
pub fn to_toml(answers: &Answers) -> String {
    let mut table = toml::Table::new();
    for q in QUESTIONS {
        let Some(text) = answers.get(q.id) else { continue };
        let value = match q.kind {
            Kind::Disks | Kind::Links => {
                toml::Value::Array(text.split_whitespace().map(|t| toml::Value::String(t.into())).collect())
            }
            _ => toml::Value::String(text.into()),
        };
        table.insert(q.key.into(), value);
    }
    table.to_string()
}

/// Sets the answers in the order of the questions, because each is checked against the earlier ones.
fn read(given: Vec<(String, Option<String>)>, surroundings: &Surroundings) -> Result<Answers, Problem> {
    let mut by_question: Vec<(&'static Question, String)> = Vec::new();
    for (key, text) in given {
        let question = QUESTIONS
            .iter()
            .find(|q| q.key == key)
            .ok_or_else(|| Problem::UnknownKey(key.chars().filter(|c| !c.is_control()).take(60).collect()))?;
        by_question.push((question, text.ok_or(Problem::WrongType(question.key))?));
    }
    by_question.sort_by_key(|(question, _)| question.id);
    let mut answers = Answers::new();
    for (q, text) in by_question.iter().filter(|(_, text)| !text.is_empty()) {
        if !allowed(q.id, &answers, surroundings) {
            return Err(Problem::UnfittingKey(q.key));
        }
        answers.set(q.id, text, surroundings)?;
    }
    Ok(answers)
}

/// The texts separated by spaces; `None` if an element is not a text.
fn joined<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    texts.collect::<Option<Vec<_>>>().map(|list| list.join(" "))
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').chars().take(200).collect()
}
