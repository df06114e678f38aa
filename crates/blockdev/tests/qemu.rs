//! Test with a real QEMU: a guest boots from the device and writes while the serving process is killed and restarted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dyad_blockdev::{Backend, BackendError, Config, ReplyTo, Request, Server};

const SIZE: u64 = 1 << 20;
/// Time for an emulated boot on a busy machine. QEMU before 9.2 waits a whole second before it connects again.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A boot sector that counts in a loop: it writes the counter to the second sector through the firmware, reads it back,
/// compares it, and sends "." on the serial line. If anything fails, it sends "E" and halts.
const COUNTER: [u8; 89] = [
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // ds = es = ss = 0, stack below
    0x88, 0x16, 0x00, 0x7f, // keep the number of the boot disk
    0x66, 0xc7, 0x06, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, // counter (at 0x8000) = 0
    0x66, 0xff, 0x06, 0x00, 0x80, // loop: counter += 1
    0xb8, 0x01, 0x03, 0xbb, 0x00, 0x80, 0xe8, 0x1c, 0x00, // write one sector from 0x8000
    0xb8, 0x01, 0x02, 0xbb, 0x00, 0x82, 0xe8, 0x13, 0x00, // read it to 0x8200
    0x66, 0xa1, 0x00, 0x80, 0x66, 0x3b, 0x06, 0x00, 0x82, 0x75, 0x16, // the same? else fail
    0xb0, 0x2e, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xd6, // send ".", loop
    0xb9, 0x02, 0x00, 0x8a, 0x16, 0x00, 0x7f, 0xb6, 0x00, 0xcd, 0x13, 0x72, 0x01, 0xc3, // sector 2: int 13h
    0xb0, 0x45, 0xba, 0xf8, 0x03, 0xee, 0xf4, 0xeb, 0xfd, // fail: send "E", halt
];

/// A volume in a file, so that it survives the serving process.
struct FileVolume(File);

impl FileVolume {
    fn perform(&self, request: &Request) -> std::io::Result<Bytes> {
        match request {
            Request::Read { offset, len } => {
                let mut bytes = vec![0; *len as usize];
                self.0.read_exact_at(&mut bytes, *offset)?;
                return Ok(bytes.into());
            }
            Request::Write { offset, data } => self.0.write_all_at(data, *offset)?,
            Request::Flush => {}
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                self.0.write_all_at(&vec![0; *len as usize], *offset)?;
            }
        }
        Ok(Bytes::new())
    }
}

impl Backend for FileVolume {
    fn submit(&self, request: Request, reply_to: ReplyTo) {
        reply_to.complete(self.perform(&request).map_err(BackendError::failed));
    }

    fn size(&self) -> u64 {
        SIZE
    }
}

/// Not a test: the process that the test below starts and kills. Without the environment variable it does nothing.
#[test]
fn serving_child() {
    let Ok(dir) = std::env::var("DYAD_TEST_SERVE_FILE") else { return };
    let dir = Path::new(&dir);
    let file = File::options().read(true).write(true).open(dir.join("disk.img")).unwrap();
    let server = Server::start(dir.join("blk.sock"), Arc::new(FileVolume(file)), Config::new("disk")).unwrap();
    while server.status().running {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that serves the file in `dir`.
fn serve(dir: &Path) -> Running {
    let socket = dir.join("blk.sock");
    let _ = std::fs::remove_file(&socket);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serving_child", "--nocapture"])
        .env("DYAD_TEST_SERVE_FILE", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the socket", || socket.exists());
    Running(child)
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_guest_sees_a_pause_when_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = COUNTER.to_vec();
    image.resize(510, 0);
    image.extend([0x55, 0xaa]);
    image.resize(SIZE as usize, 0);
    std::fs::write(dir.path().join("disk.img"), image).unwrap();
    let mut server = serve(dir.path());
    let socket = dir.path().join("blk.sock");
    // An environment variable may name another QEMU, such as that of the image.
    let program = std::env::var_os("DYAD_TEST_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
    let mut qemu = Command::new(program)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-m", "64M"])
        .args(["-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-machine", "q35,memory-backend=ram"])
        .args(["-device", "vhost-user-blk-pci,chardev=disk,bootindex=1,num-queues=1", "-serial", "stdio"])
        .args(["-chardev", &format!("socket,id=disk,reconnect=1,path={}", socket.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86_64 is installed");
    let mut serial = qemu.stdout.take().unwrap();
    let _qemu = Running(qemu);
    let (count, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, fail) = (count.clone(), failed.clone());
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(serial.read(&mut byte), Ok(1)) {
            match byte[0] {
                b'.' => drop(counted.fetch_add(1, Ordering::SeqCst)),
                b'E' => fail.store(true, Ordering::SeqCst),
                _ => {}
            }
        }
    });
    let progress = |by: u32| {
        let goal = count.load(Ordering::SeqCst) + by;
        wait_for("the guest's progress", || failed.load(Ordering::SeqCst) || count.load(Ordering::SeqCst) >= goal);
        assert!(!failed.load(Ordering::SeqCst), "the guest saw an I/O error or old data");
    };
    progress(20);
    for kill in 0..4 {
        server.0.kill().unwrap();
        server.0.wait().unwrap();
        server = serve(dir.path());
        progress(20 + 13 * kill);
    }
    drop(_qemu);
    let mut counter = [0; 4];
    let disk = File::open(dir.path().join("disk.img")).unwrap();
    disk.read_exact_at(&mut counter, 512).unwrap();
    assert!(u32::from_le_bytes(counter) >= count.load(Ordering::SeqCst), "an acknowledged write is missing");
}
