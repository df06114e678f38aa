//! The checksum of the store: CRC32C (Castagnoli), in hardware where available. And a test for zeros.

use crate::birth::Birth;
use dyad_types::{BlockIndex, VolumeId};

/// Checksum of a block's data, seeded with volume, block number and birth, so that a block stored at a wrong place
/// does not match.
pub(crate) fn block(volume: VolumeId, block: BlockIndex, birth: Birth, data: &[u8]) -> u32 {
    let mut seed = [0u8; 24];
    seed[..8].copy_from_slice(&volume.0.to_le_bytes());
    seed[8..16].copy_from_slice(&block.0.to_le_bytes());
    seed[16..].copy_from_slice(&birth.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), data)
}

/// Checksum of plain bytes.
pub(crate) fn plain(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// Checksum of the concatenation of byte strings.
pub(crate) fn joined<const N: usize>(parts: [&[u8]; N]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Whether all bytes are zero; compares whole blocks, which is fast in every profile.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use crate::birth::Birth;
    use dyad_types::{BlockIndex, VolumeId};

    #[test]
    fn known_value_and_seed() {
        assert_eq!(super::plain(b"123456789"), 0xe306_9283);
        let data = [7u8; 4096];
        let one = super::block(VolumeId(1), BlockIndex(2), Birth(3), &data);
        assert_ne!(one, super::block(VolumeId(2), BlockIndex(2), Birth(3), &data));
        assert_ne!(one, super::block(VolumeId(1), BlockIndex(3), Birth(3), &data));
        assert_ne!(one, super::block(VolumeId(1), BlockIndex(2), Birth(4), &data));
    }
}
