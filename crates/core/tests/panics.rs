//! One thread less is one process less.

use std::process::Command;

use dyad_core::panics;

/// Set in the process that is to end.
const INSIDE: &str = "DYAD_TEST_PANICS";

#[test]
fn a_panic_in_any_thread_ends_the_process() {
    if std::env::var_os(INSIDE).is_some() {
        panics::end_the_process();
        let thread = std::thread::spawn(|| panic!("as planned"));
        // A caller that waits for such a thread would go on without it.
        let _ = thread.join();
        return;
    }
    let myself = std::env::current_exe().unwrap();
    let ended = Command::new(myself)
        .args(["--exact", "a_panic_in_any_thread_ends_the_process", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(panics::EXIT_CODE), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("as planned"), "{ended:?}");
}
