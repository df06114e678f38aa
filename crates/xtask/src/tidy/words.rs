//! Rules on words: no metaphor in an identifier, and no subject in a sentence that names nothing.

use std::collections::BTreeSet;

use super::lexer::{Kind, Token, tokens};
use super::sources::{crate_folders, files, read, repository, shown};

/// Words banned in identifiers and what to write instead. A word is a part of an identifier between underscores or
/// capitals, in lower case; `*` at its end stands for any ending.
const BANNED: &[(&str, &str)] = &[
    ("around", "LocalInfo, or the name of what is meant"),
    ("blackout", "double_power_loss"),
    ("breath", "the name of the interval"),
    ("bury*", "reclaim_deleted"),
    ("chronicle", "TimelineFollower"),
    ("conductor", "quorum_thread"),
    ("contacts", "pairing"),
    ("crowd", "ConnectionLimits"),
    ("dice", "Prng"),
    ("doom*", "removing"),
    ("draft*", "PendingPasswords"),
    ("enforcer", "cgroup_fence"),
    ("facts", "WatchdogInfo, metadata, or the name of what is meant"),
    ("flaw", "ImportError"),
    ("food", "feed, fed"),
    ("forming", "pair_setup"),
    ("forsake*", "decommissioned"),
    ("goodbye", "Leave, begin_leave"),
    ("happening", "VmEvent"),
    ("homes", "ExtentMap"),
    ("hungry", "not fed"),
    ("illegal", "InvalidTransition"),
    ("keeper*", "DocumentTask, StoreWriter"),
    ("lab", "process-tests"),
    ("leftover*", "volume_gc"),
    ("lent", "DrainBody"),
    ("manner", "PowerAction, DhcpMode"),
    ("mend*", "restore"),
    ("news", "QuorumUpdate"),
    ("obey*", "write_until_confirmed"),
    ("orders", "commands, requests"),
    ("pace", "the name of the interval"),
    ("parting", "link_partition"),
    ("patience", "the name of the timeout"),
    ("play*", "run, fake"),
    ("poisoned", "corrupt_blocks"),
    ("pulse", "Keepalive, StallDetector"),
    ("rebirth", "restart"),
    ("rehom*", "FailOver, failover_in_flight"),
    ("sabotage", "PlantedBug"),
    ("saboteur", "fault_agent"),
    ("scene*", "the name of the fixture"),
    ("seat*", "Acceptor, ConnectionPermit"),
    ("standing", "RunState, NodeState"),
    ("standpoint", "QuorumSnapshot"),
    ("starv*", "stop_feeding"),
    ("stories", "scenarios"),
    ("story", "Scenario"),
    ("stranger*", "UnadmittedStore, or unknown node"),
    ("tenure", "membership_term"),
    ("trouble", "error"),
    ("unwell", "Faulty"),
    ("wish*", "DecisionInput, or the name of the request"),
];

/// Subjects that name nothing: a sentence says which part of the system it is about.
const VAGUE: [&str; 8] = ["nobody", "whoever", "somebody", "one that", "one who", "what came of", "anew", "of today"];

/// The words of an identifier: `begin_leave` and `BeginLeave` → `begin`, `leave`.
pub fn words_of(identifier: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before_upper = true;
    let characters: Vec<char> = identifier.chars().collect();
    for (at, &character) in characters.iter().enumerate() {
        let next_is_lower = characters.get(at + 1).is_some_and(|next| next.is_lowercase());
        // A capital begins a word behind a small letter, and before one: `VmEvent`, `GUEST_OS`, `HTTPServer`.
        let begins = character.is_uppercase() && (!before_upper || next_is_lower);
        if (begins || character == '_') && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character != '_' {
            word.extend(character.to_lowercase());
        }
        before_upper = character.is_uppercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The first banned word in an identifier, and what to write instead.
fn banned(identifier: &str) -> Option<(&'static str, &'static str)> {
    let words = words_of(identifier);
    let hits = |banned: &str| match banned.strip_suffix('*') {
        Some(start) => words.iter().any(|word| word.starts_with(start)),
        None => words.iter().any(|word| word == banned),
    };
    BANNED.iter().find(|(banned, _)| hits(banned)).copied()
}

#[test]
fn identifiers_have_no_banned_words() {
    let mut failures = Vec::new();
    for (_, folder) in crate_folders() {
        for path in files(&folder, "rs") {
            let text = read(&path);
            let mut seen = BTreeSet::new();
            for token in tokens(&text) {
                if !matches!(token.kind, Kind::Identifier | Kind::Lifetime) || !seen.insert(token.text) {
                    continue;
                }
                if let Some((_, instead)) = banned(token.text) {
                    failures.push(format!("{}:{}: {} (instead: {instead})", shown(&path), token.line, token.text));
                }
            }
        }
    }
    assert!(failures.is_empty(), "use the field's word:\n{}", failures.join("\n"));
}

/// Number of vague subjects in a text.
fn vague_in(text: &str) -> usize {
    let text = text.to_lowercase();
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let whole_word = |at: usize, len: usize| {
        let (before, after) = (text[..at].chars().next_back(), text[at + len..].chars().next());
        // A word in quotes is mentioned, not used.
        let quoted = before == after && matches!(before, Some('"' | '`'));
        !letter(before) && !letter(after) && !quoted
    };
    VAGUE.iter().map(|vague| text.match_indices(vague).filter(|(at, hit)| whole_word(*at, hit.len())).count()).sum()
}

/// Line and text of each line of a Rust file's comments and strings, and of each line of any other file.
fn sentences<'a>(path: &std::path::Path, text: &'a str) -> Vec<(usize, &'a str)> {
    let lines = |first: usize, text: &'a str| text.lines().enumerate().map(move |(n, line)| (first + n, line));
    if path.extension().is_some_and(|end| end == "rs") {
        let is_text = |token: &Token<'_>| match token.kind {
            Kind::Comment => true,
            Kind::Literal => token.text.ends_with(['"', '#']),
            Kind::Identifier | Kind::Lifetime | Kind::Punctuation => false,
        };
        tokens(text).into_iter().filter(is_text).flat_map(|token| lines(token.line, token.text)).collect()
    } else {
        lines(1, text).collect()
    }
}

#[test]
fn sentences_name_their_subject() {
    let mut failures = Vec::new();
    for extension in ["rs", "md"] {
        for path in files(repository(), extension) {
            let below = path.strip_prefix(repository()).expect("it was found there");
            let text = read(&path);
            for (line, sentence) in sentences(&path, &text) {
                if vague_in(sentence) > 0 {
                    failures.push(format!("{}:{line}: {}", below.display(), sentence.trim()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "name the subject instead of {}:\n{}", VAGUE.join(", "), failures.join("\n"));
}

#[test]
fn identifiers_are_cut_into_words() {
    assert_eq!(words_of("begin_leave"), ["begin", "leave"]);
    assert_eq!(words_of("VmEvent"), ["vm", "event"]);
    assert_eq!(words_of("HTTPServer"), ["http", "server"]);
    assert_eq!(words_of("_PEER_TIMEOUT"), ["peer", "timeout"]);
    for bad in
        ["say_goodbye", "Rehoming", "PATIENCE", "SESSION_PATIENCE", "isUnwell", "obeyed", "StrangerNode", "orders"]
    {
        assert!(banned(bad).is_some(), "{bad}");
    }
    for good in ["space", "namespace", "silent", "workaround", "impatience_", "leave", "display", "amend", "load_order"]
    {
        assert!(banned(good).is_none(), "{good}");
    }
}

#[test]
fn vague_subjects_are_counted_in_comments_and_strings() {
    // The words come from the list: written out in this string, the rule would count them here.
    let [a, b, c, d] = [VAGUE[0], VAGUE[2], VAGUE[3], VAGUE[6]];
    let text = format!("// {a} waits, {d}.\nfn {a}() {{ f(\"{b}\", \"to {b}\") }} /* one\nthat: {c} */");
    let counted: usize =
        sentences(std::path::Path::new("a.rs"), &text).iter().map(|(_, sentence)| vague_in(sentence)).sum();
    assert_eq!(counted, 4);
    assert_eq!(vague_in("renewal is no one-thatch; write no `nobody`"), 0);
}
