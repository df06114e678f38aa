//! The store's checksums, CRC32C (Castagnoli), computed in hardware where the CPU can do so; and a test for zeros.

use crate::birth::Birth;
use dyad_types::{BLOCK, BlockIndex, VolumeId};

/// CRC32C over volume, block number, birth and the block's data. The numbers are included so that good data of another
/// block, read from a wrong place, does not match.
pub(crate) fn block(volume: VolumeId, block: BlockIndex, birth: Birth, data: &[u8]) -> u32 {
    let mut seed = [0u8; 24];
    seed[..8].copy_from_slice(&volume.0.to_le_bytes());
    seed[8..16].copy_from_slice(&block.0.to_le_bytes());
    seed[16..].copy_from_slice(&birth.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), data)
}

/// The checksum that the index holds for a block that is marked as lost. The checkpoint writes zeros in the place of such
/// a block, and this checksum differs from that of the zeros, so a read of the block fails after each restart as well.
pub(crate) fn lost_block(volume: VolumeId, number: BlockIndex, birth: Birth) -> u32 {
    !block(volume, number, birth, &[0; BLOCK])
}

/// CRC32C of the bytes alone.
pub(crate) fn plain(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// CRC32C of the byte strings as if they were one, without copying them together.
pub(crate) fn joined<const N: usize>(parts: [&[u8]; N]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Whether all bytes are zero. Compares 4096 bytes at a time with a constant, which is fast without compiler
/// optimisation, too.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use crate::birth::Birth;
    use dyad_types::{BlockIndex, VolumeId};

    #[test]
    fn a_checksum_is_the_standard_one_and_that_of_a_block_depends_on_its_numbers() {
        assert_eq!(super::plain(b"123456789"), 0xe306_9283);
        let data = [7u8; 4096];
        let one = super::block(VolumeId(1), BlockIndex(2), Birth(3), &data);
        assert_ne!(one, super::block(VolumeId(2), BlockIndex(2), Birth(3), &data));
        assert_ne!(one, super::block(VolumeId(1), BlockIndex(3), Birth(3), &data));
        assert_ne!(one, super::block(VolumeId(1), BlockIndex(2), Birth(4), &data));
    }
}
