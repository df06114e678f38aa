//! Keys of the index. Numbers are big-endian, so that the order of keys is the order of numbers.

use crate::birth::Birth;
use dyad_types::{ExtentIndex, VolumeId};

/// Changes of one index: key and new value, or `None` to remove it.
pub(crate) type Patch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The record with the sum of the checksums of all others.
pub(crate) const ROOT: &[u8] = &[0];
pub(crate) const VOLUME: u8 = 1;
pub(crate) const DIRTY: u8 = 2;
pub(crate) const UNCONFIRMED: u8 = 3;
pub(crate) const META: u8 = 4;
pub(crate) const EXTENT: u8 = 5;

fn numbers<const N: usize>(kind: u8, fields: [u64; N]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * N);
    key.push(kind);
    for field in fields {
        key.extend_from_slice(&field.to_be_bytes());
    }
    key
}

pub(crate) fn volume(volume: VolumeId) -> Vec<u8> {
    numbers(VOLUME, [volume.0])
}

pub(crate) fn dirty(volume: VolumeId, chunk: u64) -> Vec<u8> {
    numbers(DIRTY, [volume.0, chunk])
}

pub(crate) fn unconfirmed(volume: VolumeId, chunk: u64) -> Vec<u8> {
    numbers(UNCONFIRMED, [volume.0, chunk])
}

pub(crate) fn meta(name: &[u8]) -> Vec<u8> {
    [&[META], name].concat()
}

pub(crate) fn extent(volume: VolumeId, extent: ExtentIndex, birth: Birth) -> Vec<u8> {
    numbers(EXTENT, [volume.0, extent.0, birth.0])
}

/// The numbers of a key made of `N` of them.
pub(crate) fn parse<const N: usize>(key: &[u8]) -> Option<[u64; N]> {
    let fields = key.get(1..)?;
    if fields.len() != 8 * N {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}
