//! A panic in any thread ends the process.
//!
//! A daemon that lost one thread might send heartbeats and not serve its volumes. After the end of the process init starts
//! it again, or the peer takes over.

/// Exit code of the process after a panic.
pub const EXIT_CODE: i32 = 101;

/// Installs a panic hook that reports the panic as the hook before did and then ends the process with [`EXIT_CODE`].
pub fn end_process_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(EXIT_CODE);
    }));
}
