//! Test that the manual names each code of a refusal, an alarm and a timeline entry. `unrecognised` is left out: it stands for
//! a code of another version.

use dyad_api::ErrorCode;
use dyad_control::{AlarmCode, RefusalCode, TimelineKind};

const REFUSALS: &str = include_str!("../../../docs/manual/refusals.md");
const ALARMS: &str = include_str!("../../../docs/manual/alarms.md");
const TIMELINE: &str = include_str!("../../../docs/manual/timeline.md");

#[test]
fn each_refusal_is_in_the_manual() {
    let given = ErrorCode::all().filter(|code| *code != ErrorCode::Refused(RefusalCode::Unrecognised));
    let missing: Vec<_> = given.filter(|code| !REFUSALS.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "add to docs/manual/refusals.md: {missing:?}");
}

#[test]
fn each_alarm_is_in_the_manual() {
    let given = AlarmCode::ALL.iter().filter(|code| **code != AlarmCode::Unrecognised);
    let missing: Vec<_> = given.filter(|code| !ALARMS.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "add to docs/manual/alarms.md: {missing:?}");
}

#[test]
fn each_kind_of_timeline_entry_is_in_the_manual() {
    let given = TimelineKind::ALL.iter().filter(|kind| **kind != TimelineKind::Unrecognised);
    let missing: Vec<_> = given.filter(|kind| !TIMELINE.contains(&format!("`{kind}`"))).collect();
    assert!(missing.is_empty(), "add to docs/manual/timeline.md: {missing:?}");
}
