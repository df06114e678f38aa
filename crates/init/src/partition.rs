//! The partition table of the system disk: recognises it, and adds the partitions that the image does not have.

use anyhow::{Context, bail};
use dyad_update::layout::{self, MIB};
use gptman::{GPT, GPTPartitionEntry};
use std::io::{Read, Seek, SeekFrom, Write};

/// Name of the state partition until its file system is complete. A partition with this name holds no data yet and may be
/// formatted.
const UNFINISHED: &str = "dyad-state.new";

/// The role of a disk, as its partition table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionRole {
    /// Not a Dyad system disk.
    Other,
    /// A Dyad system disk.
    System {
        /// Number of the system partition, in the partition table.
        esp: u32,
        /// Identifier of the system partition, as the boot loader reports it.
        esp_id: String,
        state: StatePartition,
    },
}

/// The state partition of a system disk, with its number in the partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatePartition {
    Absent,
    /// The partition exists, and its file system is not complete.
    Unfinished(u32),
    Ready(u32),
}

/// Reads the partition table of a disk and finds its role.
pub fn role(disk: &mut (impl Read + Seek)) -> PartitionRole {
    let Ok(table) = GPT::find_from(disk) else { return PartitionRole::Other };
    let find = |name: &str, kind: [u8; 16]| {
        let fits =
            |entry: &GPTPartitionEntry| entry.partition_type_guid == kind && entry.partition_name.as_str() == name;
        table.iter().find(|(_, entry)| fits(entry)).map(|(number, entry)| (number, entry.unique_partition_guid))
    };
    let Some((esp, id)) = find(layout::ESP, layout::partition(layout::ESP).kind) else { return PartitionRole::Other };
    let kind = layout::partition(layout::STATE).kind;
    let state = match (find(layout::STATE, kind), find(UNFINISHED, kind)) {
        (Some((number, _)), _) => StatePartition::Ready(number),
        (None, Some((number, _))) => StatePartition::Unfinished(number),
        (None, None) => StatePartition::Absent,
    };
    PartitionRole::System { esp, esp_id: layout::format_guid(&id), state }
}

/// Adds the state partition and, on a large disk, the spare partition. First the table is extended to the end of the disk,
/// because the table in the image ends where the image ends. Returns the number of the state partition, which has the name
/// of an unfinished one.
pub fn add_state(disk: &mut (impl Read + Write + Seek)) -> anyhow::Result<u32> {
    let bytes = disk.seek(SeekFrom::End(0))?;
    let mut table = GPT::find_from(disk).context("the partition table of the system disk is damaged")?;
    let sector = table.sector_size;
    table.header.update_from(disk, sector).context("the partition table does not fit the system disk")?;
    table.align = MIB / sector;
    if bytes >= layout::MIN_DISK_WITH_SPARE {
        let spare = layout::partition(layout::SPARE);
        add(&mut table, &spare, spare.name, spare.bytes / sector)?;
    }
    let row = layout::partition(layout::STATE);
    let room = table.get_maximum_partition_size().unwrap_or(0) / table.align * table.align;
    if room * sector < layout::MIN_STATE_BYTES {
        bail!(
            "the system disk has no {} MiB left for the state of this node: use a larger disk",
            layout::MIN_STATE_BYTES / MIB
        );
    }
    let number = add(&mut table, &row, UNFINISHED, room.min(row.bytes / sector))?;
    write(&mut table, disk)?;
    Ok(number)
}

/// Gives the state partition its final name, which says that its file system is complete.
pub fn finish_state(disk: &mut (impl Read + Write + Seek), number: u32) -> anyhow::Result<()> {
    let mut table = GPT::find_from(disk).context("the partition table of the system disk is damaged")?;
    table[number].partition_name = layout::STATE.into();
    write(&mut table, disk)
}

fn add(table: &mut GPT, row: &layout::Partition, name: &str, sectors: u64) -> anyhow::Result<u32> {
    let number = table
        .iter()
        .find(|(_, entry)| entry.is_unused())
        .map(|(number, _)| number)
        .context("the partition table of the system disk is full")?;
    let first = table.find_first_place(sectors).with_context(|| format!("the system disk has no room for {name}"))?;
    table[number] = GPTPartitionEntry {
        partition_type_guid: row.kind,
        unique_partition_guid: row.id,
        starting_lba: first,
        ending_lba: first + sectors - 1,
        attribute_bits: 0,
        partition_name: name.into(),
    };
    Ok(number)
}

fn write(table: &mut GPT, disk: &mut (impl Read + Write + Seek)) -> anyhow::Result<()> {
    // gptman writes the table at the beginning of the disk first and then the backup at its end.
    table.write_into(disk).context("the partition table of the system disk cannot be written")?;
    disk.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// A disk to which the image was written: its partition table ends where the image ends, and the disk is larger.
    fn flashed(bytes: u64) -> File {
        let mut disk = tempfile::tempfile().expect("a file");
        let esp = layout::partition(layout::ESP);
        disk.set_len(esp.bytes + 2 * MIB).expect("sized");
        let mut table = GPT::new_from(&mut disk, 512, layout::disk_id()).expect("a table");
        table.align = MIB / 512;
        add(&mut table, &esp, esp.name, esp.bytes / 512).expect("room");
        table.write_into(&mut disk).expect("written");
        disk.set_len(bytes).expect("sized");
        disk
    }

    fn state(disk: &mut File) -> StatePartition {
        match role(disk) {
            PartitionRole::System { state, .. } => state,
            PartitionRole::Other => panic!("not recognised"),
        }
    }

    #[test]
    fn a_flashed_disk_gets_one_state_partition_and_a_table_to_its_end() {
        let mut disk = flashed(32 << 30);
        assert_eq!(state(&mut disk), StatePartition::Absent);
        let number = add_state(&mut disk).expect("added");
        assert_eq!(state(&mut disk), StatePartition::Unfinished(number));
        finish_state(&mut disk, number).expect("finished");
        assert_eq!(state(&mut disk), StatePartition::Ready(number));

        let table = GPT::find_from(&mut disk).expect("a table");
        assert_eq!(table.header.backup_lba, (32 << 30) / 512 - 1, "the backup stayed at the end of the image");
        let sizes: Vec<_> = table
            .iter()
            .filter(|(_, entry)| entry.is_used())
            .map(|(_, entry)| (entry.partition_name.as_str().to_owned(), entry.size().expect("a size") * 512 / MIB))
            .collect();
        let named = |name: &str| layout::partition(name).bytes / MIB;
        let expected = [layout::ESP, layout::SPARE, layout::STATE].map(|name| (name.to_owned(), named(name)));
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_small_disk_gets_a_smaller_state_partition_and_no_spare_partition() {
        let mut disk = flashed(2 << 30);
        let number = add_state(&mut disk).expect("added");
        let table = GPT::find_from(&mut disk).expect("a table");
        assert_eq!(table.iter().filter(|(_, entry)| entry.is_used()).count(), 2);
        let mib = table[number].size().expect("a size") * 512 / MIB;
        assert!((1500..=1535).contains(&mib), "{mib} MiB");
    }

    #[test]
    fn a_disk_too_small_for_the_state_is_refused_and_not_changed() {
        let mut disk = flashed(700 * MIB);
        assert!(add_state(&mut disk).is_err());
        assert_eq!(state(&mut disk), StatePartition::Absent);
    }

    #[test]
    fn a_blank_disk_and_a_foreign_disk_are_no_system_disks() {
        let mut blank = tempfile::tempfile().expect("a file");
        blank.set_len(64 * MIB).expect("sized");
        assert_eq!(role(&mut blank), PartitionRole::Other);
        let mut foreign = flashed(1 << 30);
        let mut table = GPT::find_from(&mut foreign).expect("a table");
        table[1].partition_name = "EFI System Partition".into();
        table.write_into(&mut foreign).expect("written");
        assert_eq!(role(&mut foreign), PartitionRole::Other);
    }
}
