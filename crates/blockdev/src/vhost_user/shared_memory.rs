//! Checks on memory that QEMU shares with this process, before it is mapped.

use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::SealFlags;
use vm_memory::mmap::MmapRegionError;

/// The reason why memory that QEMU shares cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error(
        "memory shared with a device must be a memfd sealed against shrinking; use memory-backend-memfd with share=on"
    )]
    NotSealed,
    #[error("the memory region is longer than its file")]
    TooShort,
    #[error("the memory region is larger than this machine can address")]
    TooLarge,
    #[error("the memory region could not be mapped")]
    Map(#[from] MmapRegionError),
    #[error("the memory regions are empty or overlap")]
    Layout,
}

/// Checks that a file contains the range `bytes` and is sealed against shrinking. If QEMU could truncate the file while
/// it is mapped, the next access would raise SIGBUS and end the daemon with all its volumes. vm-memory does not check
/// this.
///
/// # Errors
///
/// [`MapError::NotSealed`], [`MapError::TooShort`].
pub(crate) fn check_sealed(file: impl AsFd, bytes: Range<u64>) -> Result<(), MapError> {
    match rustix::fs::fcntl_get_seals(&file) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
        _ => return Err(MapError::NotSealed),
    }
    let size = rustix::fs::fstat(&file).map_or(0, |stat| stat.st_size.max(0) as u64);
    if bytes.end <= size { Ok(()) } else { Err(MapError::TooShort) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    /// A memfd of `size` bytes that is sealed against shrinking and growing, as QEMU makes them.
    pub fn sealed_memfd(size: u64) -> File {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(fd);
        file.set_len(size).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        file
    }
}
