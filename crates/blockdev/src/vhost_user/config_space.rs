//! The features and the configuration space that the device shows to driver and QEMU (virtio 5.2.3, 5.2.4).

use std::ops::Range;

use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtio_bindings::bindings::{virtio_blk, virtio_config, virtio_ring};

use crate::limits::{BLOCK_BYTES, MAX_BULK, MAX_TRANSFER, SECTOR};

/// Largest number of data segments in one request. QEMU's default queue has 128 descriptors, a chain must not be longer
/// (virtio 2.7.5.3.1), and header and status take two of them.
const SEG_MAX: u32 = 126;
/// Largest DISCARD or WRITE_ZEROES that the driver shall send, in sectors.
const MAX_BULK_SECTORS: u32 = (MAX_BULK / SECTOR) as u32;
/// Bytes of `struct virtio_blk_config` up to the last field with a value; the bytes behind it read as 0.
const FILLED: usize = 57;

/// The feature bits that the device offers to the driver.
pub(crate) fn features(read_only: bool) -> u64 {
    let mut bits = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() | VhostUserVirtioFeatures::LOG_ALL.bits();
    for bit in [
        virtio_blk::VIRTIO_BLK_F_SEG_MAX,
        virtio_blk::VIRTIO_BLK_F_BLK_SIZE,
        virtio_blk::VIRTIO_BLK_F_FLUSH,
        virtio_blk::VIRTIO_BLK_F_TOPOLOGY,
        virtio_blk::VIRTIO_BLK_F_MQ,
        virtio_blk::VIRTIO_BLK_F_DISCARD,
        virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES,
        virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
        virtio_ring::VIRTIO_RING_F_EVENT_IDX,
        virtio_config::VIRTIO_F_VERSION_1,
    ] {
        bits |= 1 << bit;
    }
    if read_only {
        bits |= 1 << virtio_blk::VIRTIO_BLK_F_RO;
    }
    bits
}

/// The vhost-user protocol features that the device supports.
pub(crate) fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
        | VhostUserProtocolFeatures::RESET_DEVICE
}

/// The `bytes` of `struct virtio_blk_config`, for a volume of `capacity` bytes.
pub(crate) fn read(capacity: u64, queues: u16, bytes: Range<usize>) -> Vec<u8> {
    let mut space = [0u8; FILLED];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(capacity / SECTOR).to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    // Topology: physical_block_exp, alignment_offset, min_io_size, opt_io_size; the sizes are in sectors.
    put(24, &[(BLOCK_BYTES / SECTOR).trailing_zeros() as u8, 0]);
    put(26, &((BLOCK_BYTES / SECTOR) as u16).to_le_bytes());
    put(28, &((MAX_TRANSFER / SECTOR) as u32).to_le_bytes());
    put(32, &[1]); // writeback: there is a cache, use FLUSH
    put(34, &queues.to_le_bytes());
    put(36, &MAX_BULK_SECTORS.to_le_bytes());
    put(40, &1u32.to_le_bytes()); // max_discard_seg
    put(44, &((BLOCK_BYTES / SECTOR) as u32).to_le_bytes()); // discard_sector_alignment
    put(48, &MAX_BULK_SECTORS.to_le_bytes());
    put(52, &1u32.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    bytes.map(|at| space.get(at).copied().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_has_size_and_limits_and_then_zeros() {
        let space = read(1 << 30, 4, 0..96);
        assert_eq!(u64::from_le_bytes(space[..8].try_into().unwrap()), (1 << 30) / 512);
        assert_eq!(&space[20..24], &[0, 2, 0, 0]);
        assert_eq!(space[24], 3);
        assert_eq!(&space[34..36], &[4, 0]);
        assert!(space[57..].iter().all(|byte| *byte == 0));
        assert_eq!(read(1 << 30, 4, 34..36), [4, 0]);
    }
}
