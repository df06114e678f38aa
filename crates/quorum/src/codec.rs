//! The bytes of a record: little-endian, each field at a fixed offset, as `docs/quorum.md` lists them.

use crate::types::{Acceptor, AcceptorRecord, Ballot, Config, Exception, MAX_EXCEPTIONS, Members, WitnessId};
use dyad_types::{Epoch, NodeId, VolumeId};

/// Bytes of an encoded configuration.
pub(crate) const CONFIG_BYTES: usize = 8 + 8 + 8 + 24 + 16 + MAX_EXCEPTIONS * 16;
/// Bytes of an encoded ballot.
const BALLOT_BYTES: usize = 16;
/// Bytes of an encoded record.
pub(crate) const RECORD_BYTES: usize = 8 + 16 + 8 + BALLOT_BYTES + CONFIG_BYTES + 8 + BALLOT_BYTES + CONFIG_BYTES;

/// Writes a record into exactly [`RECORD_BYTES`] bytes.
pub(crate) fn put_record(record: &AcceptorRecord, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend(record.incarnation.to_le_bytes());
    out.extend(record.witness.0.to_le_bytes());
    out.extend(record.witness_changes.to_le_bytes());
    put_ballot(record.promised, out);
    put_config(&record.base, out);
    out.extend(u64::from(record.accepted.is_some()).to_le_bytes());
    match &record.accepted {
        Some((ballot, value)) => {
            put_ballot(*ballot, out);
            put_config(value, out);
        }
        None => out.resize(out.len() + BALLOT_BYTES + CONFIG_BYTES, 0),
    }
    debug_assert_eq!(out.len() - start, RECORD_BYTES);
}

fn put_ballot(ballot: Ballot, out: &mut Vec<u8>) {
    out.extend(ballot.round.to_le_bytes());
    out.push(ballot.node as u8);
    out.extend([0; 7]);
}

fn put_config(config: &Config, out: &mut Vec<u8>) {
    assert!(config.exceptions.len() <= MAX_EXCEPTIONS, "a configuration beyond its bound must not be stored");
    out.extend(config.epoch.0.to_le_bytes());
    out.extend(config.lineage.to_le_bytes());
    let members = match config.members {
        Members::OnlyA => 1,
        Members::OnlyB => 2,
        Members::Both => 3,
    };
    out.extend([members, config.tie as u8, config.lead as u8, config.exceptions.len() as u8, 0, 0, 0, 0]);
    for incarnation in config.incarnations {
        out.extend(incarnation.to_le_bytes());
    }
    out.extend(config.witness.0.to_le_bytes());
    for exception in &config.exceptions {
        out.extend(exception.volume.0.to_le_bytes());
        out.push(exception.holder as u8);
        out.extend([0; 7]);
    }
    let unused = MAX_EXCEPTIONS - config.exceptions.len();
    out.resize(out.len() + unused * 16, 0);
}

/// Reads what [`put_record`] wrote; `None` on any value that has no meaning.
pub(crate) fn take_record(bytes: &[u8]) -> Option<AcceptorRecord> {
    let mut input = Input { bytes };
    let incarnation = input.u64()?;
    let witness = WitnessId(input.u128()?);
    let witness_changes = input.u64()?;
    let promised = input.ballot()?;
    let base = input.config()?;
    let has_accepted = input.u64()?;
    let accepted = match has_accepted {
        0 => None,
        1 => Some((input.ballot()?, input.config()?)),
        _ => return None,
    };
    Some(AcceptorRecord { incarnation, witness, witness_changes, base, promised, accepted })
}

/// The bytes that are not decoded yet.
struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = tail;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }

    fn ballot(&mut self) -> Option<Ballot> {
        let round = self.u64()?;
        let [node, ..] = self.take::<8>()?;
        Some(Ballot { round, node: node_from(node)? })
    }

    fn config(&mut self) -> Option<Config> {
        let epoch = Epoch(self.u64()?);
        let lineage = self.u64()?;
        let [members, tie, lead, count, ..] = self.take::<8>()?;
        let members = match members {
            1 => Members::OnlyA,
            2 => Members::OnlyB,
            3 => Members::Both,
            _ => return None,
        };
        let tie = match tie {
            0 => Acceptor::A,
            1 => Acceptor::B,
            2 => Acceptor::W,
            _ => return None,
        };
        let lead = node_from(lead)?;
        let incarnations = [self.u64()?, self.u64()?, self.u64()?];
        let witness = WitnessId(self.u128()?);
        let count = usize::from(count);
        if count > MAX_EXCEPTIONS {
            return None;
        }
        let mut exceptions = Vec::with_capacity(count);
        for index in 0..MAX_EXCEPTIONS {
            let volume = VolumeId(self.u64()?);
            let [holder, ..] = self.take::<8>()?;
            if index < count {
                exceptions.push(Exception { volume, holder: node_from(holder)? });
            }
        }
        Some(Config { epoch, members, tie, lead, incarnations, witness, exceptions, lineage })
    }
}

fn node_from(byte: u8) -> Option<NodeId> {
    match byte {
        0 => Some(NodeId::A),
        1 => Some(NodeId::B),
        _ => None,
    }
}

/// CRC-64/XZ (ECMA-182 polynomial, reflected), as in the xz format: check value of "123456789" is 0x995DC9BBDF1939FA.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = table();
    let mut crc = !0;
    for byte in bytes {
        crc = TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8);
    }
    !crc
}

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_the_published_check_value() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
    }

    #[test]
    fn encoded_sizes_are_those_in_the_documentation() {
        assert_eq!(CONFIG_BYTES, 320);
        assert_eq!(RECORD_BYTES, 712);
    }
}
