//! Rule: the mirror and the quorum machine's membership are driven in two places only, the daemon and the simulator. What they
//! tell each other goes through `placement`, so that no second copy of its rules can grow.

use super::lexer::Token;
use super::sources::{crate_folders, files, read, shown, split};

/// Files that pass events to the mirror.
const MIRROR_DRIVERS: [&str; 2] = ["crates/core/src/state/mirror_actions.rs", "crates/sim/src/core_model.rs"];
/// Files that may name a membership event of quorum, besides `quorum` and `placement`, each with the reason.
const ALLOWED: [(&str, &str); 4] = [
    ("crates/core/src/node.rs", "the daemon's start says whether VMs of an earlier run exist"),
    ("crates/sim/src/world.rs", "the same in the simulator"),
    ("crates/core/src/quorum_thread.rs", "the thread counts the reports that it has handled"),
    ("crates/sim/src/quorum_thread.rs", "the same in the simulator"),
];
/// Events by which quorum learns of replicas and VMs.
const MEMBERSHIP_EVENTS: [&str; 4] = ["VmsRunning", "PeerClean", "PeerDirty", "PeerInAckSet"];

/// Line and kind of each place that drives the mirror or tells quorum of membership.
fn drivers(tokens: &[Token<'_>]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for window in tokens.windows(7) {
        let texts: Vec<&str> = window.iter().map(|token| token.text).collect();
        if texts[..4] == ["mirror", ".", "handle", "("] {
            found.push((window[0].line, "drives the mirror"));
        }
        let event = matches!(texts[0], "quorum" | "dyad_quorum") && texts[1..6] == [":", ":", "Event", ":", ":"];
        if event && MEMBERSHIP_EVENTS.contains(&texts[6]) {
            found.push((window[0].line, "tells quorum of membership"));
        }
    }
    found
}

#[test]
fn only_daemon_and_simulator_drive_mirror_and_membership() {
    let mut failures = Vec::new();
    for (name, folder) in crate_folders() {
        for path in files(&folder.join("src"), "rs") {
            let place = shown(&path);
            let text = read(&path);
            let found = drivers(&split(&text).shipped);
            let fine = |kind: &str| match kind {
                "drives the mirror" => MIRROR_DRIVERS.contains(&place.as_str()) || name == "mirror",
                _ => name == "quorum" || name == "placement" || ALLOWED.iter().any(|(file, _)| *file == place),
            };
            let wrong = found.into_iter().filter(|(_, kind)| !fine(kind) && !place.contains("/tests"));
            failures.extend(wrong.map(|(line, kind)| format!("{place}:{line}: {kind}")));
        }
    }
    assert!(failures.is_empty(), "pass it through `placement`:\n{}", failures.join("\n"));
}

#[test]
fn a_second_driver_is_found() {
    let text = "
        fn settle(&mut self) {
            self.mirror.handle(now, event, &mut actions);
            self.quorum.tell(quorum::Event::PeerClean);
            self.place(dyad_placement::Event::PeerClean);
        }
    ";
    let found = drivers(&split(text).shipped);
    assert_eq!(found, [(3, "drives the mirror"), (4, "tells quorum of membership")]);
}
