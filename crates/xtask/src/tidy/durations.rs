//! Rule: the name of a duration constant ends in a word that says what it is for. `_TIMEOUT` ends a wait with an error,
//! `_INTERVAL` lies between two repeated actions, `_DELAY` comes before one action, `_PERIOD` is a span in which
//! something holds, `_DEADLINE` bounds a whole procedure.

use super::lexer::{Kind, Token, tokens};
use super::sources::{crate_folders, files, read, shown};

const ENDINGS: [&str; 5] = ["_TIMEOUT", "_INTERVAL", "_DELAY", "_PERIOD", "_DEADLINE"];
/// Types that hold a duration; `Nanos` is the one of crates that read no clock.
const DURATIONS: [&str; 2] = ["Duration", "Nanos"];
/// Types of ranges: of durations, or of numbers that hold one.
const RANGES: [&str; 2] = ["Range", "RangeInclusive"];
/// Types of numbers that hold a duration if the name ends in a unit.
const NUMBERS: [&str; 4] = ["u16", "u32", "u64", "i64"];
const UNIT_ENDINGS: [&str; 4] = ["_S", "_MS", "_US", "_NS"];
/// Names of constants that are units of time, not durations.
const UNITS: [&str; 5] = ["US", "MS", "SEC", "SECOND", "MINUTE"];

/// Line and name of each duration constant among `tokens` whose name has none of the endings.
fn misnamed<'a>(tokens: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, window) in tokens.windows(3).enumerate() {
        let [keyword, name, colon] = window else { continue };
        if !matches!(keyword.text, "const" | "static") || !colon.is(':') {
            continue;
        }
        let Some(kind) = type_name(&tokens[at + 3..]) else { continue };
        let unit = UNIT_ENDINGS.iter().find_map(|unit| name.text.strip_suffix(unit));
        let stem = match unit {
            Some(stem) if NUMBERS.contains(&kind) => stem,
            _ if DURATIONS.contains(&kind) => name.text,
            _ => continue,
        };
        let says = |ending: &&str| stem.ends_with(*ending) || *stem == ending[1..];
        if !UNITS.contains(&stem) && !ENDINGS.iter().any(says) {
            found.push((name.line, name.text));
        }
    }
    found
}

/// The last name of a type such as `std::time::Duration`, or of the elements of an array, slice or range of it.
fn type_name<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    let mut tokens = tokens;
    while tokens.first().is_some_and(|token| token.is('&') || token.is('[')) {
        tokens = &tokens[1..];
    }
    let end = tokens
        .iter()
        .position(|token| token.is('=') || token.is(';') || token.is(']') || token.is('<') || token.is('>'))?;
    let name = tokens[..end].last()?.text;
    if RANGES.contains(&name) { type_name(&tokens[end + 1..]) } else { Some(name) }
}

#[test]
fn duration_constants_say_what_they_are_for() {
    let mut failures = Vec::new();
    for folder in crate_folders().values() {
        for path in files(folder, "rs") {
            let text = read(&path);
            // Tests have durations too: all of the code is looked at.
            let code: Vec<_> = tokens(&text).into_iter().filter(|token| token.kind != Kind::Comment).collect();
            failures.extend(misnamed(&code).into_iter().map(|(line, name)| format!("{}:{line}: {name}", shown(&path))));
        }
    }
    assert!(
        failures.is_empty(),
        "end the name in {} (a unit such as _S may follow):\n{}",
        ENDINGS.join(", "),
        failures.join("\n")
    );
}

#[test]
fn a_misnamed_duration_is_found() {
    let text = "
        const PAUSE: Duration = x; const JOIN_TIMEOUT: std::time::Duration = x; pub const WAIT: std::time::Duration = x;
        const LIMIT_S: u64 = 1; const RETRY_DELAY_MS: u64 = 1; const PAGES: u64 = 1; const STEPS: [Duration; 2] = x;
        const SEC: Nanos = 1; fn f(pause: Duration) {} const KIND_S: &str = \"\";
        const GRACE_S: std::ops::RangeInclusive<u32> = 1..=3; const GRACE_PERIOD_S: RangeInclusive<u32> = 1..=3;
    ";
    let found: Vec<_> = misnamed(&tokens(text)).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["PAUSE", "WAIT", "LIMIT_S", "STEPS", "GRACE_S"]);
}
