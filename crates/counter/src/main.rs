//! `dyad-counter`: PID 1 of the test guest. It counts on its disk and says so on its serial line.
//!
//! Each line it prints is one fact, for the rig to judge:
//!
//! | line | meaning |
//! | --- | --- |
//! | `life H` | this boot of the guest; H is random. Said again now and then, should a line have been garbled |
//! | `fault …` | a slot does not hold what a flushed write put there: data was lost |
//! | `resume N` | N is the newest counter found on the disk at this boot; said again now and then |
//! | `tick N` | the guest executes, whatever its disk does; N grows by one about every 250 ms |
//! | `ack N MS` | counter N is flushed; writing and flushing it took MS milliseconds |
//! | `pause_ms M` | M is the longest such time of this boot; printed when it grows |
//! | `io_error …` | the disk returned an error, which a guest of the pair must never see |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread;
use std::time::{Duration, Instant};

use dyad_counter::{BLOCK, SLOTS, STRIDE, Slot, decode, encode, offset, survey};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};

/// Between two writes: fast enough to see a pause, slow enough that two guests leave an emulated node half of its
/// processor. A pause that begins within a rest is seen shorter by what is left of the rest.
const WRITE_INTERVAL: Duration = Duration::from_millis(150);
/// Between two ticks.
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// Ticks after which the guest says again who it is: who looks later knows whose ticks they are.
const LIFE: u64 = 8;
/// The disk may appear a moment after its driver.
const DISK_DEADLINE: Duration = Duration::from_secs(30);
/// Modules in the order they need each other; the image builder puts them below `/modules`.
const MODULES: &str = "/modules/order";

/// O_DIRECT wants memory aligned like the disk's blocks.
#[repr(C, align(4096))]
struct Page([u8; BLOCK]);

fn main() {
    let mut line = match console() {
        Ok(line) => line,
        Err(error) => {
            println!("error no serial line: {error}");
            rest_forever();
        }
    };
    if let Err(error) = count(&mut line) {
        say(&mut line, &format!("error {error}"));
    }
    rest_forever();
}

/// PID 1 must not end: the kernel would panic and hide the line that says why.
fn rest_forever() -> ! {
    loop {
        thread::park();
    }
}

fn console() -> io::Result<File> {
    fs::create_dir_all("/dev")?;
    mount("dev", "/dev", "devtmpfs", MountFlags::empty(), None)?;
    OpenOptions::new().write(true).open("/dev/ttyS0")
}

fn say(line: &mut File, text: &str) {
    // A serial line that cannot be written has nowhere to report it.
    let _ = line.write_all(format!("{text}\r\n").as_bytes());
}

/// Shows that the guest executes even while its disk keeps it waiting: a second runner would be seen by this alone.
fn tick(mut line: File, life: u64) {
    thread::spawn(move || {
        for number in 1_u64.. {
            say(&mut line, &format!("tick {number}"));
            if number.is_multiple_of(LIFE) {
                say(&mut line, &format!("life {life:016x}"));
            }
            thread::sleep(TICK_INTERVAL);
        }
    });
}

fn count(line: &mut File) -> io::Result<()> {
    load_modules(line)?;
    let disk = open_disk()?;
    let mut seed = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let life = u64::from_le_bytes(seed);
    // The kernel may have left its words in the middle of a line.
    say(line, "");
    say(line, &format!("life {life:016x}"));
    tick(line.try_clone()?, life);

    let found = survey(&read_ring(&disk)?);
    for fault in &found.faults {
        say(line, &format!("fault {fault}"));
    }
    say(line, &format!("resume {}", found.newest));

    let mut page = Box::new(Page([0; BLOCK]));
    let mut longest = Duration::ZERO;
    for counter in found.newest + 1.. {
        page.0 = encode(counter, life);
        let start = Instant::now();
        write(line, &disk, counter, &page);
        let took = start.elapsed();
        say(line, &format!("ack {counter} {}", took.as_millis()));
        if took > longest {
            longest = took;
            say(line, &format!("pause_ms {}", longest.as_millis()));
        }
        if counter.is_multiple_of(16) {
            check(line, &disk, counter, life)?;
            say(line, &format!("life {life:016x}\r\nresume {}", found.newest));
        }
        thread::sleep(WRITE_INTERVAL);
    }
    Ok(())
}

/// Writes and flushes until it succeeds; each error is reported, since the pair promises none.
fn write(line: &mut File, disk: &File, counter: u64, page: &Page) {
    while let Err(error) = disk.write_all_at(&page.0, offset(counter)).and_then(|()| disk.sync_data()) {
        say(line, &format!("io_error counter {counter}: {error}"));
        thread::sleep(Duration::from_secs(1));
    }
}

/// What was just flushed must read back as this boot wrote it; anything else had another writer.
fn check(line: &mut File, disk: &File, counter: u64, life: u64) -> io::Result<()> {
    let mut page = Box::new(Page([0; BLOCK]));
    disk.read_exact_at(&mut page.0, offset(counter))?;
    let read = decode(&page.0);
    if read != (Slot::Counter { counter, life }) {
        say(line, &format!("fault counter {counter} read back as {read:?}"));
    }
    Ok(())
}

fn read_ring(disk: &File) -> io::Result<Vec<Slot>> {
    let mut page = Box::new(Page([0; BLOCK]));
    (0..SLOTS)
        .map(|slot| {
            disk.read_exact_at(&mut page.0, dyad_counter::DATA_OFFSET + slot * STRIDE)?;
            Ok(decode(&page.0))
        })
        .collect()
}

fn load_modules(line: &mut File) -> io::Result<()> {
    for name in fs::read_to_string(MODULES)?.lines() {
        let module = File::open(format!("/modules/{name}"))?;
        if let Err(error) = rustix::system::finit_module(&module, c"", 0) {
            say(line, &format!("error module {name}: {error}"));
        }
    }
    Ok(())
}

fn open_disk() -> io::Result<File> {
    let start = Instant::now();
    loop {
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open("/dev/vda");
        match disk {
            Err(error) if error.kind() == io::ErrorKind::NotFound && start.elapsed() < DISK_DEADLINE => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}
