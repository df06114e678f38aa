//! Keys of the index: one byte for the kind of the record, then numbers. The numbers are big-endian, so that keys sort
//! by their numbers.

use crate::birth::Birth;
use dyad_types::{ExtentIndex, VolumeId};

/// The changes that one commit makes to an index: each a key with its new value, or with `None` to remove the record.
pub(crate) type Patch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Key of the record with the sum of the checksums of all other records.
pub(crate) const ROOT: &[u8] = &[0];
/// Kind: metadata of a volume.
pub(crate) const VOLUME: u8 = 1;
/// Kind: bitmap of dirty extents, one record per chunk of 4096 extents.
pub(crate) const DIRTY: u8 = 2;
/// Kind: bitmap of unconfirmed extents, one record per chunk of 4096 extents.
pub(crate) const UNCONFIRMED: u8 = 3;
/// Kind: a named value of [`crate::Pool::meta_put`].
pub(crate) const META: u8 = 4;
/// Kind: slot and checksums of an extent.
pub(crate) const EXTENT: u8 = 5;

fn key_of_numbers<const N: usize>(kind: u8, fields: [u64; N]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * N);
    key.push(kind);
    for field in fields {
        key.extend_from_slice(&field.to_be_bytes());
    }
    key
}

pub(crate) fn volume(volume: VolumeId) -> Vec<u8> {
    key_of_numbers(VOLUME, [volume.0])
}

pub(crate) fn dirty(volume: VolumeId, chunk: u64) -> Vec<u8> {
    key_of_numbers(DIRTY, [volume.0, chunk])
}

pub(crate) fn unconfirmed(volume: VolumeId, chunk: u64) -> Vec<u8> {
    key_of_numbers(UNCONFIRMED, [volume.0, chunk])
}

pub(crate) fn meta(name: &[u8]) -> Vec<u8> {
    [&[META], name].concat()
}

pub(crate) fn extent(volume: VolumeId, extent: ExtentIndex, birth: Birth) -> Vec<u8> {
    key_of_numbers(EXTENT, [volume.0, extent.0, birth.0])
}

/// The `N` numbers behind the kind of a key; `None` if the key has another length.
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
