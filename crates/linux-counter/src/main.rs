//! `dyad-linux-counter`: PID 1 of the counting guest with Linux. It writes counters to its disk and reports each one on its serial line.
//!
//! Each printed line states one fact, which the rig checks:
//!
//! | line | meaning |
//! | --- | --- |
//! | `boot H` | this boot of the guest; H is a random number of 16 hexadecimal digits. Repeated every 8 ticks, because a line may be garbled |
//! | `fault …` | a slot does not hold what a flushed write put there: data was lost |
//! | `resume N` | N is the newest counter found on the disk at this boot; repeated with every 16th counter |
//! | `tick N` | the guest executes, also while a disk request is pending; N grows by one about every 250 ms |
//! | `ack N MS` | counter N is flushed; writing and flushing it took MS milliseconds |
//! | `pause_ms M` | M is the longest MS of this boot; printed when it grows |
//! | `io_error …` | the disk returned an error, which a guest of the pair must never get |
//! | `error …` | the guest cannot load a module, open or read its disk, or continue |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread;
use std::time::{Duration, Instant};

use dyad_counter::{BLOCK, BootNumber, SLOTS, STRIDE, Slot, Survey, decode, encode, offset};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};

/// Pause between two writes. It bounds how precisely a pause is measured: a pause that begins between two writes is
/// measured shorter, by at most this much. At 150 ms two guests use less than half of an emulated node's processor.
const WRITE_INTERVAL: Duration = Duration::from_millis(150);
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// The number of ticks between two `boot` lines. The rig may open the line at any time and needs to know whose ticks it
/// reads.
const TICKS_PER_BOOT_LINE: u64 = 8;
/// Maximum wait for the disk device, which appears only after its driver was loaded.
const DISK_DEADLINE: Duration = Duration::from_secs(30);
/// File with the names of the kernel modules, each after those it depends on. The image builder writes it.
const MODULE_LIST: &str = "/modules/order";

/// A block in memory at an address that is a multiple of 4 KiB, which O_DIRECT requires.
#[repr(C, align(4096))]
struct AlignedBlock([u8; BLOCK]);

fn main() {
    let mut line = match console() {
        Ok(line) => line,
        Err(error) => {
            println!("error no serial line: {error}");
            park_forever();
        }
    };
    if let Err(error) = count(&mut line) {
        say(&mut line, &format!("error {error}"));
    }
    park_forever();
}

/// PID 1 must not end: the kernel would panic and hide the line that says why.
fn park_forever() -> ! {
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
    // An error on the serial line has no other place to be reported.
    let _ = line.write_all(format!("{text}\r\n").as_bytes());
}

/// Prints `tick` lines from a thread of its own, so that they continue while a disk request is pending. Ticks from two
/// nodes at one time prove that two copies of the guest run.
fn start_ticks(mut line: File, boot: u64) {
    thread::spawn(move || {
        for number in 1_u64.. {
            say(&mut line, &format!("tick {number}"));
            if number.is_multiple_of(TICKS_PER_BOOT_LINE) {
                say(&mut line, &format!("boot {boot:016x}"));
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
    let boot = u64::from_le_bytes(seed);
    // The kernel's last message may lack its line end.
    say(line, "");
    say(line, &format!("boot {boot:016x}"));
    start_ticks(line.try_clone()?, boot);

    let ring = read_ring(&disk)?;
    let found = Survey::new(&ring);
    for fault in found.faults() {
        say(line, &format!("fault {fault}"));
    }
    say(line, &format!("resume {}", found.newest));

    let mut page = Box::new(AlignedBlock([0; BLOCK]));
    let mut longest = Duration::ZERO;
    for counter in found.newest + 1.. {
        page.0 = encode(counter, BootNumber(boot));
        let start = Instant::now();
        write_counter(line, &disk, counter, &page);
        let took = start.elapsed();
        say(line, &format!("ack {counter} {}", took.as_millis()));
        if took > longest {
            longest = took;
            say(line, &format!("pause_ms {}", longest.as_millis()));
        }
        if counter.is_multiple_of(16) {
            check_counter(line, &disk, counter, BootNumber(boot))?;
            say(line, &format!("boot {boot:016x}\r\nresume {}", found.newest));
        }
        thread::sleep(WRITE_INTERVAL);
    }
    Ok(())
}

/// Writes and flushes a counter until both succeed. Each error is reported, because the pair promises that a guest gets
/// none.
fn write_counter(line: &mut File, disk: &File, counter: u64, page: &AlignedBlock) {
    while let Err(error) = disk.write_all_at(&page.0, offset(counter)).and_then(|()| disk.sync_data()) {
        say(line, &format!("io_error counter {counter}: {error}"));
        thread::sleep(Duration::from_secs(1));
    }
}

/// Reads the flushed counter back. Any other content is a lost write, damage, or the write of a second copy of the guest.
fn check_counter(line: &mut File, disk: &File, counter: u64, BootNumber(boot): BootNumber) -> io::Result<()> {
    let mut page = Box::new(AlignedBlock([0; BLOCK]));
    disk.read_exact_at(&mut page.0, offset(counter))?;
    let read = decode(&page.0);
    if read != (Slot::Counter { counter, boot }) {
        say(line, &format!("fault counter {counter} read back as {read:?}"));
    }
    Ok(())
}

fn read_ring(disk: &File) -> io::Result<Vec<Slot>> {
    let mut page = Box::new(AlignedBlock([0; BLOCK]));
    (0..SLOTS)
        .map(|slot| {
            disk.read_exact_at(&mut page.0, dyad_counter::DATA_OFFSET + slot * STRIDE)?;
            Ok(decode(&page.0))
        })
        .collect()
}

fn load_modules(line: &mut File) -> io::Result<()> {
    for name in fs::read_to_string(MODULE_LIST)?.lines() {
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
