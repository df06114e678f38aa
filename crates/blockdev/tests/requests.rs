//! What a guest asks for is what happens to the volume.

mod common;

use common::*;
use dyad_blockdev::{Config, Request};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

const SIZE: u64 = 8 << 20;

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| seed.wrapping_add(n as u8).wrapping_mul(31)).collect()
}

#[test]
fn what_was_written_is_read_back_and_the_driver_is_interrupted() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    let data = pattern(12288, 7);
    assert_eq!(it.guest.run(0, OUT, 8, &data).0, 0);
    wait_for("an interrupt", || it.guest.interrupted(0));
    assert_eq!(it.volume.bytes(4096, 12288), data);
    let (status, read) = it.guest.run(0, IN, 8, &[0; 12288]);
    assert_eq!((status, read), (0, data));
    assert_eq!(it.guest.run(0, FLUSH, 0, &[]).0, 0);
    assert_eq!(it.volume.asked().last(), Some(&Request::Flush));
    assert_eq!(it.server.status().served, 3);
}

#[test]
fn sectors_are_merged_into_blocks() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    it.guest.run(0, OUT, 0, &pattern(16384, 1));
    let mut expected = pattern(16384, 1);
    for (sector, count, seed) in [(1, 1, 9), (7, 2, 50), (3, 20, 77), (8, 8, 3)] {
        let data = pattern(count * 512, seed);
        assert_eq!(it.guest.run(0, OUT, sector, &data).0, 0);
        expected[sector as usize * 512..][..data.len()].copy_from_slice(&data);
        assert_eq!(it.volume.bytes(0, 16384), expected);
    }
    let (_, read) = it.guest.run(0, IN, 5, &[0; 1536]);
    assert_eq!(read, expected[5 * 512..][..1536]);
}

#[test]
fn neighbours_written_at_once_by_several_queues_are_all_kept() {
    let mut it = serve(4, SIZE, Config::new("disk"));
    it.volume.hold();
    // Sixteen writers of single sectors in two blocks, with a full-block write among them.
    for sector in 0..16u16 {
        it.guest.submit(usize::from(sector % 4), sector / 4, OUT, u64::from(sector), &[sector as u8 + 1; 512]);
    }
    wait_for("requests at the volume", || it.volume.held() > 0);
    it.volume.release();
    for queue in 0..4 {
        for _ in 0..4 {
            assert_eq!(it.guest.wait(queue).1, 0);
        }
    }
    for sector in 0..16 {
        assert_eq!(it.volume.bytes(sector * 512, 512), [sector as u8 + 1; 512]);
    }
}

#[test]
fn discards_keep_partial_blocks_and_zeroes_do_not() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    it.guest.run(0, OUT, 0, &[0xaa; 32768]);
    assert_eq!(it.guest.run(0, DISCARD, 0, &range(4, 24)).0, 0);
    let after = it.volume.bytes(0, 32768);
    assert!(after[..4096].iter().all(|byte| *byte == 0xaa));
    assert!(after[4096..12288].iter().all(|byte| *byte == 0));
    assert!(after[12288..].iter().all(|byte| *byte == 0xaa));
    assert_eq!(it.guest.run(0, WRITE_ZEROES, 0, &range(34, 20)).0, 0);
    let after = it.volume.bytes(0, 32768);
    assert!(after[16384..34 * 512].iter().all(|byte| *byte == 0xaa));
    assert!(after[34 * 512..54 * 512].iter().all(|byte| *byte == 0));
    assert!(after[54 * 512..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn wrong_requests_get_a_status_and_change_nothing() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    let end = SIZE / 512;
    assert_eq!(it.guest.run(0, OUT, end, &[1; 512]).0, 1);
    assert_eq!(it.guest.run(0, IN, end - 1, &[1; 1024]).0, 1);
    assert_eq!(it.guest.run(0, OUT, u64::MAX, &[1; 512]).0, 1);
    assert_eq!(it.guest.run(0, OUT, 0, &[1; 100]).0, 1);
    assert_eq!(it.guest.run(0, OUT, 0, &[]).0, 1);
    assert_eq!(it.guest.run(0, DISCARD, 0, &range(end - 1, 2)).0, 1);
    assert_eq!(it.guest.run(0, DISCARD, 0, &[0; 8]).0, 1);
    assert_eq!(it.guest.run(0, 77, 0, &[]).0, 2);
    assert_eq!(it.volume.asked(), []);
    it.volume.fail();
    assert_eq!(it.guest.run(0, IN, 0, &[0; 512]).0, 1);
}

#[test]
fn the_device_says_who_it_is() {
    let mut it = serve(2, SIZE, Config::new("vol-000042-and-more-than-20"));
    let (status, id) = it.guest.run(1, GET_ID, 0, &[0; 20]);
    assert_eq!((status, id.as_slice()), (0, b"vol-000042-and-more-".as_slice()));
    let (_, space) = it.guest.front().get_config(0, 60, VhostUserConfigFlags::empty(), &[0; 60]).unwrap();
    assert_eq!(space[..8], (SIZE / 512).to_le_bytes());
    assert_eq!(it.guest.front().get_queue_num().unwrap(), 16);
}

#[test]
fn a_read_only_device_refuses_changes() {
    let config = Config { read_only: true, ..Config::new("iso") };
    let mut it = serve(1, SIZE, config);
    assert_eq!(it.guest.run(0, OUT, 0, &[1; 512]).0, 1);
    assert_eq!(it.guest.run(0, WRITE_ZEROES, 0, &range(0, 8)).0, 1);
    assert_eq!(it.guest.run(0, IN, 0, &[1; 512]), (0, vec![0; 512]));
}

#[test]
fn a_driver_without_flush_gets_durable_writes() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    it.guest.features &= !(1 << 9);
    let path = it.server.path().to_owned();
    it.guest.front = None;
    wait_for("the end of the connection", || !it.server.status().connected);
    it.guest.connect(&path).unwrap();
    assert_eq!(it.guest.run(0, OUT, 0, &[1; 4096]).0, 0);
    assert!(matches!(it.volume.asked()[..], [Request::Write { .. }, Request::Flush]));
}

#[test]
fn memory_for_data_is_bounded_and_everything_is_served_in_the_end() {
    let config = Config { memory_limit: 128 << 10, ..Config::new("disk") };
    let mut it = serve(2, SIZE, config);
    it.volume.hold();
    for slot in 0..SLOTS {
        it.guest.submit(0, slot, OUT, u64::from(slot) * 64, &[slot as u8 + 1; 32768]);
        it.guest.submit(1, slot, IN, u64::from(slot) * 64, &[0; 32768]);
    }
    wait_for("requests at the volume", || it.volume.held() >= 3);
    assert!(it.volume.held() <= 5, "the limit lets about four requests in");
    it.volume.release();
    for queue in 0..2 {
        for _ in 0..SLOTS {
            assert_eq!(it.guest.wait(queue).1, 0);
        }
    }
    for slot in 0..usize::from(SLOTS) {
        assert_eq!(it.volume.bytes(slot * 32768, 32768), vec![slot as u8 + 1; 32768]);
    }
}

#[test]
fn a_request_longer_than_a_chunk_is_cut() {
    let mut it = serve(1, SIZE, Config::new("disk"));
    // One request of 2 MiB + 512 bytes, unaligned at both ends, from an indirect table.
    let len = (2 << 20) + 512u32;
    let data = pattern(len as usize, 5);
    use vm_memory::{Bytes, GuestAddress};
    it.guest.memory.write_slice(&data, GuestAddress(8 << 20)).unwrap();
    it.guest.header(0, 0, OUT, 3);
    // The table: header, data, status.
    it.guest.descriptor(3, 0, header(0, 0), 16, NEXT, 1);
    it.guest.descriptor(3, 1, 8 << 20, len, NEXT, 2);
    it.guest.descriptor(3, 2, status(0, 0), 1, WRITE, 0);
    it.guest.descriptor(0, 0, ring(3), 48, INDIRECT, 0);
    it.guest.offer(0, 0);
    assert_eq!(it.guest.wait(0), (0, 0, 1));
    assert_eq!(it.volume.bytes(3 * 512, len as usize), data);
    let writes = it.volume.asked();
    let writes = writes.iter().filter(|asked| matches!(asked, Request::Write { .. })).count();
    assert_eq!(writes, 3);
}
