//! The partitions of the system disk, from the table `image/partitions`, which the image builder and init both use.

pub use dyad_types::MIB;

/// Name of the system partition, which has the boot loader and the slots.
pub const ESP: &str = "dyad-esp";
/// Name of the empty partition that is reserved for a larger system partition in later versions. Only disks of at least
/// [`MIN_DISK_WITH_SPARE`] bytes have it.
pub const SPARE: &str = "dyad-spare";
/// Name of the partition for the node's persistent state.
pub const STATE: &str = "dyad-state";
/// Minimum size of a disk that gets the spare partition, in bytes.
pub const MIN_DISK_WITH_SPARE: u64 = 16 << 30;
/// Minimum size of the state partition, in bytes; a disk with less room is refused.
pub const MIN_STATE_BYTES: u64 = 256 << 20;

const TABLE: &str = include_str!("../../../image/partitions");

/// One row of the table `image/partitions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name in the GPT.
    pub name: &'static str,
    /// Whether the image has the partition; otherwise init creates it at the first boot.
    pub in_image: bool,
    /// Size in bytes. For the state partition it is the maximum: a small disk has less room.
    pub bytes: u64,
    /// Type GUID, in the byte order of the disk.
    pub kind: [u8; 16],
    /// Partition GUID, in the byte order of the disk.
    pub id: [u8; 16],
}

/// Disk GUID of a disk with a new image, in the byte order of the disk.
pub fn disk_id() -> [u8; 16] {
    let row = TABLE.lines().find_map(|line| line.strip_prefix("# disk")).expect("the table names the disk");
    parse_guid(row.trim()).expect("the disk has an identifier")
}

/// All rows, in the order of the partitions on the disk.
///
/// # Panics
/// If `image/partitions` is malformed, which a test of this crate excludes.
pub fn partitions() -> Vec<Partition> {
    TABLE
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .map(parse_row)
        .collect()
}

/// The row with this name.
///
/// # Panics
/// If the table has no such row.
pub fn partition(name: &str) -> Partition {
    partitions().into_iter().find(|row| row.name == name).expect("the table has this row")
}

/// Parses a row: name, `image` or `first`, size in MiB, type GUID, partition GUID.
fn parse_row(line: &'static str) -> Partition {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, when, mib, kind, id] = fields[..] else { panic!("a row has five fields: {line}") };
    Partition {
        name,
        in_image: when == "image",
        bytes: mib.parse::<u64>().expect("a size in MiB") * MIB,
        kind: parse_guid(kind).expect("a type"),
        id: parse_guid(id).expect("an identifier"),
    }
}

/// Parses a GUID. GPT stores the first three fields in little-endian order (UEFI 2.10, appendix A).
pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let hex: String = text.split('-').collect();
    if text.len() != 36 || hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

/// The text form of a GUID, in lower case.
pub fn format_guid(bytes: &[u8; 16]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (i, &at) in ORDER.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[at]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_partitions_that_image_and_init_rely_on() {
        let names: Vec<_> = partitions().iter().map(|row| (row.name, row.in_image)).collect();
        assert_eq!(names, [(ESP, true), (SPARE, false), (STATE, false)]);
        assert_eq!(partition(ESP).kind, parse_guid("C12A7328-F81F-11D2-BA4B-00A0C93EC93B").expect("the ESP type"));
        // Some firmware reads a file system of 4 KiB clusters as FAT16, not FAT32, if it is smaller than 264 MiB.
        assert!(partition(ESP).bytes >= 264 * MIB);
        assert_ne!(disk_id(), [0; 16]);
    }

    #[test]
    fn a_guid_is_parsed_to_the_byte_order_of_the_disk_and_printed_back() {
        let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let bytes = parse_guid(text).expect("an identifier");
        assert_eq!(&bytes[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
        assert_eq!(format_guid(&bytes), text);
        assert_eq!(parse_guid("c12a7328"), None);
        assert_eq!(parse_guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93g"), None);
    }
}
