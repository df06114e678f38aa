//! A panic in any thread ends the process.
//!
//! A node that lost one of its threads looks alive and does nothing. As a whole it is restarted by init or fenced.

/// What the process ends with.
pub const EXIT_CODE: i32 = 101;

/// From now on a panic is reported as before, and then is the end.
pub fn end_the_process() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(EXIT_CODE);
    }));
}
