//! The panic hook of the daemon.

use std::process::Command;

use dyad_core::panics;

/// Environment variable that is set in the child process, in which the thread panics.
const CHILD_PROCESS: &str = "DYAD_TEST_PANICS";

#[test]
fn a_panic_in_any_thread_ends_the_process() {
    if std::env::var_os(CHILD_PROCESS).is_some() {
        panics::end_process_on_panic();
        let thread = std::thread::spawn(|| panic!("as planned"));
        // Without the hook `join` would return an error, and this process would end with code 0.
        let _ = thread.join();
        return;
    }
    let myself = std::env::current_exe().unwrap();
    let ended = Command::new(myself)
        .args(["--exact", "a_panic_in_any_thread_ends_the_process", "--nocapture"])
        .env(CHILD_PROCESS, "1")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(panics::EXIT_CODE), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("as planned"), "{ended:?}");
}
