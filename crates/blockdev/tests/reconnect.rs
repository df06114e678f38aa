//! Tests in which the server is killed or stopped, or QEMU stops a ring: no request is lost, and no late completion
//! changes the guest's memory.

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::volume::Volume;
use common::*;
use dyad_blockdev::{Config, Request, Server, ServerHandle};
use dyad_testkit::vhost::memfd;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vm_memory::{Bytes, GuestAddress};

const SIZE: u64 = 8 << 20;

fn start(path: &Path, volume: &std::sync::Arc<Volume>) -> ServerHandle {
    Server::start(path, volume.clone(), Config::new("disk")).unwrap()
}

/// The offsets of the writes among these requests.
fn offsets(requests: &[Request]) -> Vec<u64> {
    let writes = requests.iter().filter_map(|request| match request {
        Request::Write { offset, .. } => Some(*offset),
        _ => None,
    });
    writes.collect()
}

#[test]
fn requests_in_flight_are_submitted_again_in_order_of_arrival() {
    let Served { dir: _dir, path, volume: first, server, mut guest } = serve(1, SIZE, Config::new("disk"));
    guest.submit(0, 0, OUT, 0, &[9; 4096]);
    assert_eq!(guest.wait(0).1, 0);
    first.hold();
    // In flight by slot 5, 1, 3; blocks 10, 11, 12.
    for (n, slot) in [5, 1, 3].into_iter().enumerate() {
        guest.submit(0, slot, OUT, (10 + n as u64) * 8, &[slot as u8; 4096]);
    }
    wait_for("three requests", || first.held() == 3);
    server.stop();
    assert!(!path.exists());
    // Requests that arrive while no server runs.
    guest.submit(0, 7, OUT, 8 * 8, &[7; 4096]);
    let second = Volume::new(SIZE);
    let _server = start(&path, &second);
    guest.connect(&path).unwrap();
    for slot in [5, 1, 3, 7] {
        assert_eq!(guest.wait(0), (slot, 0, 1));
    }
    assert_eq!(offsets(&second.take_requests()), [10, 11, 12, 8].map(|block| block * 4096));
    // The first server's volume answers now, which must have no effect.
    first.release();
    wait_for("the old answers", || first.held() == 0);
    assert_eq!(guest.poll(0), None);
    assert_eq!(guest.run(0, OUT, 0, &[1; 512]).0, 0);
}

#[test]
fn requests_answered_out_of_order_are_not_submitted_again() {
    let Served { dir: _dir, path, volume: first, server, mut guest } = serve(1, SIZE, Config::new("disk"));
    // A slot that is used, answered and used again is in flight.
    guest.submit(0, 4, OUT, 0, &[9; 4096]);
    assert_eq!(guest.wait(0).0, 4);
    first.hold();
    for slot in [4, 2, 9] {
        guest.submit(0, slot, OUT, u64::from(slot) * 8, &[slot as u8; 4096]);
    }
    wait_for("three requests", || first.held() == 3);
    first.release_one(2);
    assert_eq!(guest.wait(0).0, 9);
    server.stop();
    let second = Volume::new(SIZE);
    let _server = start(&path, &second);
    guest.connect(&path).unwrap();
    assert_eq!([guest.wait(0).0, guest.wait(0).0], [4, 2]);
    assert_eq!(offsets(&second.take_requests()), [4 * 4096, 2 * 4096]);
    assert_eq!(guest.poll(0), None);
}

#[test]
fn an_interrupt_that_may_have_been_lost_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.sock");
    let _server = start(&path, &Volume::new(SIZE));
    let mut guest = Guest::new(2);
    guest.connect(&path).unwrap();
    let interrupted = [guest.interrupted(0), guest.interrupted(1)];
    assert_eq!(interrupted, [true, true], "the killed server may have answered without a notification");
}

#[test]
fn closing_the_connection_is_a_pause() {
    let Served { dir: _dir, path, volume, server, mut guest } = serve(2, SIZE, Config::new("disk"));
    volume.hold();
    guest.submit(0, 0, OUT, 0, &[3; 1024]);
    guest.submit(1, 0, OUT, 16, &[4; 4096]);
    wait_for("two requests", || volume.held() == 2);
    server.close_connection();
    wait_for("the end of the connection", || !server.status().connected);
    // The first write of block 0 is still at the volume, so its repetition waits for it.
    guest.connect(&path).unwrap();
    volume.release();
    assert_eq!(guest.wait(0), (0, 0, 1));
    assert_eq!(guest.wait(1), (0, 0, 1));
    assert_eq!(volume.bytes(0, 1024), [3; 1024]);
    assert_eq!(volume.bytes(8192, 4096), [4; 4096]);
    assert_eq!(server.status().in_flight, 0);
}

/// A VM that is started again must not read a block that a write of its former run changes afterwards.
#[test]
fn a_new_guest_waits_for_the_requests_of_the_one_before() {
    let Served { dir: _dir, path, volume, server, guest: mut killed } = serve(1, SIZE, Config::new("disk"));
    volume.hold();
    killed.submit(0, 0, OUT, 0, &[3; 4096]);
    wait_for("the write", || volume.held() == 1);
    drop(killed);
    wait_for("the end of the connection", || !server.status().connected);
    let mut restarted = Guest::new(1);
    restarted.connect(&path).unwrap();
    restarted.submit(0, 0, IN, 0, &[0xee; 4096]);
    // After these round trips the device's thread has seen the request.
    restarted.front().get_features().unwrap();
    restarted.front().get_features().unwrap();
    assert_eq!((volume.held(), restarted.poll(0)), (1, None), "the read waits for the write");
    volume.release();
    assert_eq!(restarted.wait(0), (0, 0, 4097));
    assert_eq!(restarted.data(0, 0, 4096), [3; 4096]);
}

#[test]
fn stopping_a_ring_waits_for_its_requests() {
    let Served { dir: _dir, path: _, volume, server: _server, mut guest } = serve(1, SIZE, Config::new("disk"));
    volume.hold();
    guest.submit(0, 0, OUT, 0, &[3; 4096]);
    wait_for("the request", || volume.held() == 1);
    let releasing = volume.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        releasing.release();
    });
    assert_eq!(guest.front().get_vring_base(0).unwrap(), 1);
    assert_eq!(guest.poll(0), Some((0, 0, 1)), "answered before the ring stopped");
    thread.join().unwrap();
}

#[test]
fn stopping_a_ring_takes_limited_time_and_late_answers_do_not_change_the_guest() {
    let Served { dir: _dir, path, volume, server: _server, mut guest } =
        serve(1, SIZE, Config { drain_limit: Duration::from_millis(100), ..Config::new("disk") });
    volume.hold();
    guest.submit(0, 0, IN, 0, &[0xee; 4096]);
    guest.memory.write_slice(&[0xee; 4096], GuestAddress(data_buffer(0, 0))).unwrap();
    wait_for("the request", || volume.held() == 1);
    let before = Instant::now();
    assert_eq!(guest.front().get_vring_base(0).unwrap(), 1);
    assert!(before.elapsed() < Duration::from_secs(3));
    volume.release();
    wait_for("the late answer", || volume.held() == 0);
    // After these round trips the device's thread has seen the late answer.
    guest.front().get_features().unwrap();
    guest.front().get_features().unwrap();
    assert_eq!(guest.poll(0), None);
    assert_eq!(guest.data(0, 0, 4096), [0xee; 4096]);
    // The ring continues with the request that was not answered.
    guest.front = None;
    guest.connect(&path).unwrap();
    assert_eq!(guest.wait(0), (0, 0, 4097));
    assert_eq!(guest.data(0, 0, 4096), [0; 4096]);
}

/// The thread that stops a device may be the thread that has to answer its requests. So a stop must not wait for
/// requests in flight.
#[test]
fn a_device_that_waits_for_answers_can_be_stopped() {
    const TEST_TIMEOUT: Duration = Duration::from_secs(600);
    let Served { dir: _dir, path: _, volume, server, mut guest } =
        serve(1, SIZE, Config { drain_limit: TEST_TIMEOUT, ..Config::new("drained") });
    volume.hold();
    guest.submit(0, 0, IN, 0, &[0; 4096]);
    wait_for("the request", || volume.held() == 1);
    let stopping = std::thread::spawn(move || {
        // The call returns when the connection ends, if not before.
        let _ = guest.front().get_vring_base(0);
    });
    // The device's thread is in poll (7) or ppoll (271) then; at all other times it waits in epoll_wait.
    let waits = |task: &std::path::Path| {
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        read("comm").trim() == "blk-drained" && ["7 ", "271 "].iter().any(|call| read("syscall").starts_with(call))
    };
    wait_for("the device to wait for answers", || {
        std::fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| waits(&task.path()))
    });
    let before = Instant::now();
    server.stop();
    assert!(before.elapsed() < TEST_TIMEOUT / 2);
    stopping.join().unwrap();
}

#[test]
fn pages_written_during_a_migration_are_logged() {
    const LOG_ALL: u64 = 1 << 26;
    let Served { dir: _dir, path: _, volume: _volume, server: _server, mut guest } =
        serve(1, SIZE, Config::new("disk"));
    let log = memfd(4096).unwrap();
    let region = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
    guest.front().set_log_base(0, Some(region)).unwrap();
    let pages = || -> Vec<u64> {
        let mut bytes = [0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&log, &mut bytes, 0).unwrap();
        (0..4096 * 8).filter(|page| bytes[page / 8] & (1 << (page % 8)) != 0).map(|page| page as u64).collect()
    };
    guest.run(0, IN, 0, &[0; 8192]);
    assert_eq!(pages(), [0u64; 0], "logging is not switched on yet");
    let features = guest.front().get_features().unwrap();
    guest.front().set_features(features & !(1 << 5) | LOG_ALL).unwrap();
    guest.run(0, IN, 0, &[0; 8192]);
    let data = data_buffer(0, 0) / 4096;
    let expected = [ring(0) / 4096 + 2, status(0, 0) / 4096, data, data + 1];
    assert_eq!(pages(), expected, "used ring, status, data");
}

/// Not a test: the process that the next test starts and kills. It serves a volume that never answers. Without the
/// environment variable it does nothing.
#[test]
fn serving_child() {
    let Ok(path) = std::env::var("DYAD_TEST_SERVE") else { return };
    let volume = Volume::new(SIZE);
    let server = start(Path::new(&path), &volume);
    volume.hold();
    let mut reported = 0;
    while server.status().running {
        let held = volume.held();
        if held != reported {
            reported = held;
            eprintln!("holding {held}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a process that runs only [`serving_child`].
fn child(path: &Path) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serving_child", "--nocapture"])
        .env("DYAD_TEST_SERVE", path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the child's socket", || path.exists());
    child
}

#[test]
fn a_killed_server_loses_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.sock");
    let mut guest = Guest::new(1);
    for round in 0..5 {
        let mut killed = child(&path);
        if round == 0 {
            guest.connect(&path).unwrap();
            for slot in 0..SLOTS {
                guest.submit(0, slot, OUT, u64::from(slot) * 8, &[slot as u8 + 1; 4096]);
            }
        } else {
            guest.connect(&path).unwrap();
        }
        let mut lines = BufReader::new(killed.stderr.take().unwrap()).lines();
        // The server is killed at different moments: while it takes requests, and when it has taken all.
        let enough = if round < 2 { "holding".to_owned() } else { format!("holding {SLOTS}") };
        assert!(lines.any(|line| line.unwrap().starts_with(&enough)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        guest.front = None;
        std::fs::remove_file(&path).unwrap();
    }
    let volume = Volume::new(SIZE);
    let _server = start(&path, &volume);
    guest.connect(&path).unwrap();
    for slot in 0..SLOTS {
        assert_eq!(guest.wait(0), (slot, 0, 1));
        assert_eq!(volume.bytes(usize::from(slot) * 4096, 4096), [slot as u8 + 1; 4096]);
    }
    assert_eq!(guest.poll(0), None);
}
