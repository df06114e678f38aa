//! Two network namespaces joined by one cable (a veth pair called `cable` on both ends).

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Number of the next pair of namespaces of this process.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two network namespaces with a cable between them, deleted when this is dropped.
pub struct Namespaces {
    pub a: String,
    pub b: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip can be run");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespaces {
    /// Creates the namespaces. Returns `None`, with a message, for a user who is not root; for root an error fails the
    /// test.
    pub fn create() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            // Not by `eprintln!`: the test harness shows its output only if the test fails.
            let _ = writeln!(std::io::stderr(), "SKIPPED: network namespaces need root");
            return None;
        }
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("dyad-link-{}-{number}{side}", std::process::id());
        let spaces = Self { a: name('a'), b: name('b') };
        ip(&format!("netns add {}", spaces.a));
        ip(&format!("netns add {}", spaces.b));
        spaces.plug();
        Some(spaces)
    }

    fn plug(&self) {
        let Self { a, b } = self;
        ip(&format!("-n {a} link add cable type veth peer name cable netns {b}"));
        for space in [a, b] {
            ip(&format!("-n {space} link set cable up"));
        }
    }

    /// Removes the interfaces and adds new ones of the same name with other kernel indexes.
    pub fn replug(&mut self) {
        ip(&format!("-n {} link del cable", self.a));
        for space in [&self.a, &self.b] {
            // Takes the next kernel indexes, so that the new cable does not get those of the old one.
            ip(&format!("-n {space} link add filler type veth peer name filler2"));
        }
        self.plug();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for space in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

/// Runs `work` on a new thread inside `space`; sockets that it opens stay in the namespace.
pub fn inside<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(format!("/run/netns/{space}")).expect("the namespace is there");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
            work()
        });
        thread.join().expect("the work is done")
    })
}
