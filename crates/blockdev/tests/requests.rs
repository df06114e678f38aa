//! Tests of each kind of request: the volume gets the change that the guest requested, and the guest the right answer.

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
fn written_data_is_read_back_and_the_driver_is_interrupted() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    let data = pattern(12288, 7);
    assert_eq!(served.guest.run(0, OUT, 8, &data).0, 0);
    wait_for("an interrupt", || served.guest.interrupted(0));
    assert_eq!(served.volume.bytes(4096, 12288), data);
    let (status, read) = served.guest.run(0, IN, 8, &[0; 12288]);
    assert_eq!((status, read), (0, data));
    assert_eq!(served.guest.run(0, FLUSH, 0, &[]).0, 0);
    assert_eq!(served.volume.take_requests().last(), Some(&Request::Flush));
    assert_eq!(served.server.status().served, 3);
}

#[test]
fn sectors_are_merged_into_blocks() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    served.guest.run(0, OUT, 0, &pattern(16384, 1));
    let mut expected = pattern(16384, 1);
    for (sector, count, seed) in [(1, 1, 9), (7, 2, 50), (3, 20, 77), (8, 8, 3)] {
        let data = pattern(count * 512, seed);
        assert_eq!(served.guest.run(0, OUT, sector, &data).0, 0);
        expected[sector as usize * 512..][..data.len()].copy_from_slice(&data);
        assert_eq!(served.volume.bytes(0, 16384), expected);
    }
    let (_, read) = served.guest.run(0, IN, 5, &[0; 1536]);
    assert_eq!(read, expected[5 * 512..][..1536]);
}

#[test]
fn adjacent_sectors_written_at_once_by_several_queues_are_all_kept() {
    let mut served = serve(4, SIZE, Config::new("disk"));
    served.volume.hold();
    // Sixteen writes of single sectors, in two blocks, over four queues.
    for sector in 0..16u16 {
        served.guest.submit(usize::from(sector % 4), sector / 4, OUT, u64::from(sector), &[sector as u8 + 1; 512]);
    }
    wait_for("requests at the volume", || served.volume.held() > 0);
    served.volume.release();
    for queue in 0..4 {
        for _ in 0..4 {
            assert_eq!(served.guest.wait(queue).1, 0);
        }
    }
    for sector in 0..16 {
        assert_eq!(served.volume.bytes(sector * 512, 512), [sector as u8 + 1; 512]);
    }
}

#[test]
fn a_discard_keeps_partial_blocks_and_a_write_of_zeros_changes_them() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    served.guest.run(0, OUT, 0, &[0xaa; 32768]);
    assert_eq!(served.guest.run(0, DISCARD, 0, &range(4, 24)).0, 0);
    let after = served.volume.bytes(0, 32768);
    assert!(after[..4096].iter().all(|byte| *byte == 0xaa));
    assert!(after[4096..12288].iter().all(|byte| *byte == 0));
    assert!(after[12288..].iter().all(|byte| *byte == 0xaa));
    assert_eq!(served.guest.run(0, WRITE_ZEROES, 0, &range(34, 20)).0, 0);
    let after = served.volume.bytes(0, 32768);
    assert!(after[16384..34 * 512].iter().all(|byte| *byte == 0xaa));
    assert!(after[34 * 512..54 * 512].iter().all(|byte| *byte == 0));
    assert!(after[54 * 512..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn invalid_requests_get_an_error_status_and_change_nothing() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    let end = SIZE / 512;
    assert_eq!(served.guest.run(0, OUT, end, &[1; 512]).0, 1);
    assert_eq!(served.guest.run(0, IN, end - 1, &[1; 1024]).0, 1);
    assert_eq!(served.guest.run(0, OUT, u64::MAX, &[1; 512]).0, 1);
    assert_eq!(served.guest.run(0, OUT, 0, &[1; 100]).0, 1);
    assert_eq!(served.guest.run(0, OUT, 0, &[]).0, 1);
    assert_eq!(served.guest.run(0, DISCARD, 0, &range(end - 1, 2)).0, 1);
    assert_eq!(served.guest.run(0, DISCARD, 0, &[0; 8]).0, 1);
    assert_eq!(served.guest.run(0, 77, 0, &[]).0, 2);
    assert_eq!(served.volume.take_requests(), []);
    served.volume.fail();
    assert_eq!(served.guest.run(0, IN, 0, &[0; 512]).0, 1);
}

#[test]
fn a_failed_flush_is_an_error_for_the_guest() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    served.volume.fail_if(|request| *request == Request::Flush);
    assert_eq!(served.guest.run(0, OUT, 0, &[1; 4096]).0, 0);
    assert_eq!(served.guest.run(0, FLUSH, 0, &[]).0, 1);
}

#[test]
fn a_write_of_a_driver_without_flush_fails_if_it_is_not_durable() {
    let mut served = serve_without_flush();
    served.volume.fail_if(|request| *request == Request::Flush);
    assert_eq!(served.guest.run(0, OUT, 0, &[1; 4096]).0, 1);
}

/// Of a write that covers a part of its first and of its last block, both are read first.
#[test]
fn a_write_changes_nothing_if_one_of_its_partial_blocks_cannot_be_read() {
    let unreadable: [fn(&Request) -> bool; 2] = [
        |request| matches!(request, Request::Read { offset: 0, .. }),
        |request| matches!(request, Request::Read { offset: 8192, .. }),
    ];
    for fails in unreadable {
        let mut served = serve(1, SIZE, Config::new("disk"));
        let before = pattern(12288, 5);
        assert_eq!(served.guest.run(0, OUT, 0, &before).0, 0);
        served.volume.fail_if(fails);
        assert_eq!(served.guest.run(0, OUT, 1, &[9; 22 * 512]).0, 1);
        assert_eq!(served.volume.bytes(0, 12288), before);
    }
}

#[test]
fn the_device_shows_its_serial_number_size_and_queues() {
    let mut served = serve(2, SIZE, Config::new("vol-000042-and-more-than-20"));
    let (status, id) = served.guest.run(1, GET_ID, 0, &[0; 20]);
    assert_eq!((status, id.as_slice()), (0, b"vol-000042-and-more-".as_slice()));
    let (_, space) = served.guest.front().get_config(0, 60, VhostUserConfigFlags::empty(), &[0; 60]).unwrap();
    assert_eq!(space[..8], (SIZE / 512).to_le_bytes());
    assert_eq!(served.guest.front().get_queue_num().unwrap(), 16);
}

#[test]
fn a_read_only_device_refuses_changes() {
    let config = Config { read_only: true, ..Config::new("iso") };
    let mut served = serve(1, SIZE, config);
    assert_eq!(served.guest.run(0, OUT, 0, &[1; 512]).0, 1);
    assert_eq!(served.guest.run(0, WRITE_ZEROES, 0, &range(0, 8)).0, 1);
    assert_eq!(served.guest.run(0, IN, 0, &[1; 512]), (0, vec![0; 512]));
}

/// A device whose driver does not know flushes.
fn serve_without_flush() -> Served {
    let mut served = serve(1, SIZE, Config::new("disk"));
    served.guest.features &= !(1 << 9);
    let path = served.server.path().to_owned();
    served.guest.front = None;
    wait_for("the end of the connection", || !served.server.status().connected);
    served.guest.connect(&path).unwrap();
    served
}

#[test]
fn a_driver_without_flush_gets_durable_writes() {
    let mut served = serve_without_flush();
    assert_eq!(served.guest.run(0, OUT, 0, &[1; 4096]).0, 0);
    assert!(matches!(served.volume.take_requests()[..], [Request::Write { .. }, Request::Flush]));
}

#[test]
fn memory_for_data_is_limited_and_each_request_is_answered_in_the_end() {
    let config = Config { memory_limit: 128 << 10, ..Config::new("disk") };
    let mut served = serve(2, SIZE, config);
    served.volume.hold();
    for slot in 0..SLOTS {
        served.guest.submit(0, slot, OUT, u64::from(slot) * 64, &[slot as u8 + 1; 32768]);
        served.guest.submit(1, slot, IN, u64::from(slot) * 64, &[0; 32768]);
    }
    wait_for("requests at the volume", || served.volume.held() >= 3);
    assert!(served.volume.held() <= 5, "the limit lets about four requests in");
    served.volume.release();
    for queue in 0..2 {
        for _ in 0..SLOTS {
            assert_eq!(served.guest.wait(queue).1, 0);
        }
    }
    for slot in 0..usize::from(SLOTS) {
        assert_eq!(served.volume.bytes(slot * 32768, 32768), vec![slot as u8 + 1; 32768]);
    }
}

#[test]
fn a_request_longer_than_one_transfer_is_cut() {
    let mut served = serve(1, SIZE, Config::new("disk"));
    // One request of 2 MiB + 512 bytes, unaligned at both ends, from an indirect table.
    let len = (2 << 20) + 512u32;
    let data = pattern(len as usize, 5);
    use vm_memory::{Bytes, GuestAddress};
    served.guest.memory.write_slice(&data, GuestAddress(8 << 20)).unwrap();
    served.guest.header(0, 0, OUT, 3);
    // The table: header, data, status.
    served.guest.descriptor(3, 0, header(0, 0), 16, NEXT, 1);
    served.guest.descriptor(3, 1, 8 << 20, len, NEXT, 2);
    served.guest.descriptor(3, 2, status(0, 0), 1, WRITE, 0);
    served.guest.descriptor(0, 0, ring(3), 48, INDIRECT, 0);
    served.guest.offer(0, 0);
    assert_eq!(served.guest.wait(0), (0, 0, 1));
    assert_eq!(served.volume.bytes(3 * 512, len as usize), data);
    let writes = served.volume.take_requests();
    let writes = writes.iter().filter(|request| matches!(request, Request::Write { .. })).count();
    assert_eq!(writes, 3);
}
