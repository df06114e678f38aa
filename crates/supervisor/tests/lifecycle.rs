//! Compares the table of phases and events with the stored one, so that a review sees each change of it.

use dyad_supervisor::Phase;
use dyad_supervisor::lifecycle::VmEvent;

#[test]
fn the_table_matches_the_stored_one() {
    let mut table = String::new();
    for phase in Phase::ALL {
        for event in VmEvent::ALL {
            let after = phase.after(event).map_or_else(|_| "illegal".into(), |after| after.to_string());
            let event = format!("{event:?}");
            table += &format!("{:10} {event:10} {after}\n", phase.to_string());
        }
    }
    assert_eq!(table, include_str!("lifecycle.txt"), "the table now is:\n{table}");
}

#[test]
fn every_phase_with_a_process_ends_where_the_vm_can_be_started_or_forgotten() {
    for phase in Phase::ALL {
        if phase.is_alive() {
            let ended = phase.after(VmEvent::Gone).unwrap();
            assert!(!ended.is_alive());
            assert_eq!(ended.after(VmEvent::Start), Ok(Phase::Starting));
            assert_eq!(ended.after(VmEvent::Forget), Ok(Phase::Absent));
            assert!(phase.after(VmEvent::Start).is_err(), "a VM has at most one process");
            assert_eq!(phase.after(VmEvent::Adopt), Ok(phase));
        } else {
            assert!(phase.after(VmEvent::Gone).is_err());
            assert!(phase.after(VmEvent::Adopt).is_err());
        }
    }
}
