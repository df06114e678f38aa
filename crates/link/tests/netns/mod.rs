//! Two network namespaces joined by one cable (a veth pair called `cable` on both ends).

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped.
pub struct Namespaces {
    pub a: String,
    pub b: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip can be run");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespaces {
    /// `None`, with a message, for a user who may not create namespaces. For root every failure is a failure of the
    /// test.
    pub fn create() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            // Not by `eprintln!`: what a test prints that way is shown only if it fails.
            let _ = writeln!(std::io::stderr(), "SKIPPED: network namespaces need root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
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

    /// Removes the interfaces and adds new ones with other indexes.
    pub fn replug(&mut self) {
        ip(&format!("-n {} link del cable", self.a));
        for space in [&self.a, &self.b] {
            // Uses up indexes, so that the new cable does not get those of the old one.
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
