//! Tests that invalid rings and messages end their connection and have no other effect.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;

use common::volume::Volume;
use common::*;
use dyad_blockdev::{Config, Server, ServerHandle};
use dyad_testkit::Prng;
use vm_memory::{Bytes, GuestAddress};

/// Makes a ring invalid with `invalidate`. Checks that this ends the connection, that nothing reaches the volume, and
/// that another guest is served afterwards.
fn ends_only_the_connection(what: &str, invalidate: impl FnOnce(&mut Guest)) {
    let Served { dir: _dir, path: _, volume, server, mut guest } = serve(1, 1 << 20, Config::new("disk"));
    assert_eq!(guest.run(0, OUT, 0, &[1; 512]).0, 0);
    volume.take_requests();
    invalidate(&mut guest);
    wait_for(what, || server.status().violations == 1);
    assert_eq!(volume.take_requests(), [], "{what}: nothing reached the volume");
    serves_a_new_guest(&server);
}

fn serves_a_new_guest(server: &ServerHandle) {
    let mut guest = Guest::new(1);
    guest.connect(server.path()).unwrap();
    assert_eq!(guest.run(0, OUT, 0, &[2; 512]).0, 0);
    assert!(server.status().running);
}

/// Prepares a valid write as request 1, which uses the descriptors 3, 4 and 5. It is not offered to the device yet.
fn prepare_write(guest: &mut Guest) {
    guest.header(0, 1, OUT, 0);
    guest.descriptor(0, 3, header(0, 1), 16, NEXT, 4);
    guest.descriptor(0, 4, data_buffer(0, 1), 512, NEXT, 5);
    guest.descriptor(0, 5, status(0, 1), 1, WRITE, 0);
}

#[test]
fn a_chain_with_a_loop_ends_the_connection() {
    ends_only_the_connection("a loop", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 4, data_buffer(0, 1), 512, NEXT, 3);
        guest.offer(0, 3);
    });
}

#[test]
fn an_index_beyond_the_table_ends_the_connection() {
    ends_only_the_connection("a next index", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 4, data_buffer(0, 1), 512, NEXT, QUEUE_SIZE);
        guest.offer(0, 3);
    });
    ends_only_the_connection("a head", |guest| guest.offer(0, QUEUE_SIZE));
}

#[test]
fn an_address_outside_of_memory_ends_the_connection() {
    ends_only_the_connection("data outside", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 4, 1 << 40, 512, NEXT, 5);
        guest.offer(0, 3);
    });
    ends_only_the_connection("data across the end", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 4, (16 << 20) - 256, 512, NEXT, 5);
        guest.offer(0, 3);
    });
    ends_only_the_connection("an overflowing address", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 5, u64::MAX, 1, WRITE, 0);
        guest.offer(0, 3);
    });
}

#[test]
fn a_chain_without_status_or_header_ends_the_connection() {
    ends_only_the_connection("no status", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 4, data_buffer(0, 1), 512, 0, 0);
        guest.offer(0, 3);
    });
    ends_only_the_connection("a short header", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 3, header(0, 1), 15, NEXT, 5);
        guest.offer(0, 3);
    });
}

#[test]
fn a_readable_descriptor_after_a_writable_one_ends_the_connection() {
    ends_only_the_connection("order", |guest| {
        prepare_write(guest);
        guest.descriptor(0, 3, header(0, 1), 16, NEXT, 5);
        guest.descriptor(0, 5, status(0, 1), 1, WRITE | NEXT, 4);
        guest.offer(0, 3);
    });
}

#[test]
fn an_invalid_indirect_table_ends_the_connection() {
    ends_only_the_connection("a wrong length", |guest| {
        guest.descriptor(0, 3, ring(3), 17, INDIRECT, 0);
        guest.offer(0, 3);
    });
    ends_only_the_connection("nesting", |guest| {
        guest.descriptor(3, 0, ring(3), 16, INDIRECT, 0);
        guest.descriptor(0, 3, ring(3), 16, INDIRECT, 0);
        guest.offer(0, 3);
    });
}

#[test]
fn an_available_index_that_jumps_ends_the_connection() {
    ends_only_the_connection("a jump", |guest| {
        let idx = guest.queues[0].avail_idx.wrapping_add(QUEUE_SIZE + 1);
        guest.set_avail(0, idx);
    });
}

#[test]
fn a_chain_that_is_offered_while_in_use_ends_the_connection() {
    let Served { dir: _dir, path: _, volume, server, mut guest } = serve(1, 1 << 20, Config::new("disk"));
    volume.hold();
    guest.submit(0, 1, OUT, 0, &[1; 4096]);
    wait_for("the request", || volume.held() == 1);
    guest.offer(0, 3);
    wait_for("the violation", || server.status().violations == 1);
    volume.release();
    serves_a_new_guest(&server);
}

#[test]
fn memory_that_could_shrink_is_refused() {
    use vhost::vhost_user::Frontend;
    use vhost::vhost_user::message::VhostUserHeaderFlag;
    use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.sock");
    let server = Server::start(&path, Volume::new(1 << 20), Config::new("disk")).unwrap();
    let front = Frontend::connect(&path, 1).unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: 1 << 20,
        userspace_addr: 0x1000,
        mmap_offset: 0,
        mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&file),
    };
    let _ = front.set_mem_table(&[region]);
    wait_for("the refusal", || server.status().violations == 1);
    serves_a_new_guest(&server);
}

#[test]
fn random_bytes_on_the_socket_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.sock");
    let server = Server::start(&path, Volume::new(1 << 20), Config::new("disk")).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&[0xa5; 4096]).unwrap();
    wait_for("the end of the connection", || server.status().violations == 1);
    drop(stream);
    serves_a_new_guest(&server);
    // A client that sends half a message and then nothing must not keep the server from being stopped.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&[1, 0, 0, 0, 1, 0]).unwrap();
    server.stop();
}

/// Random bytes in descriptors and rings, in 200 rounds. After each the device's thread runs and can be stopped.
#[test]
fn random_rings_do_not_end_the_device_thread() {
    let mut prng = Prng::new(1);
    let mut random = move || prng.next_u64();
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let path = dir.path().join(format!("{round}.sock"));
        let server = Server::start(&path, Volume::new(1 << 20), Config::new("disk")).unwrap();
        let mut guest = Guest::new(1);
        guest.connect(&path).unwrap();
        for at in 0..QUEUE_SIZE {
            // Most values are plausible, so that the random bytes pass the first check.
            let addr = if random() % 16 == 0 { random() } else { ring(0) + random() % 0x8000 };
            let len = if random() % 16 == 0 { random() as u32 } else { random() as u32 % 0x900 };
            let next = (random() % u64::from(QUEUE_SIZE + 2)) as u16;
            guest.descriptor(0, at, addr, len, (random() % 8) as u16, next);
        }
        for slot in 0..SLOTS {
            guest.header(0, slot, random() as u32 % 16, random() % 4096);
        }
        for entry in 0..u64::from(QUEUE_SIZE) {
            let head = (random() % u64::from(QUEUE_SIZE)) as u16;
            guest.memory.write_obj(head, GuestAddress(ring(0) + 0x1004 + 2 * entry)).unwrap();
        }
        guest.set_avail(0, (random() % u64::from(QUEUE_SIZE)) as u16);
        let served = |server: &ServerHandle| server.status().served;
        // A round trip shows that the kick was handled, unless the connection has ended.
        let _ = vhost::VhostBackend::get_features(guest.front());
        let status = server.status();
        assert!(status.running, "round {round}: {status:?}, {}", served(&server));
        drop(guest);
        server.stop();
    }
}
