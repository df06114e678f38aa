//! Limits of the machine itself, measured in the same run: the bare cable and the bare disk.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// Bytes sent each way's first leg and written to the disk: one block.
pub use dyad_types::BLOCK;

/// Memory aligned as O_DIRECT wants it.
#[repr(C, align(4096))]
struct Page([u8; BLOCK]);

/// Where the blocks go.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Name of the network namespace.
    pub space: &'a str,
    /// Its IP address.
    pub address: &'a str,
}

/// The time of one block to the other namespace and one byte back, `rounds` times, over plain TCP.
///
/// # Errors
/// The namespaces cannot be entered.
pub fn ping_pong(from: &str, Target { space: to, address }: Target<'_>, rounds: usize) -> Result<Vec<Duration>> {
    let listener = inside(to, {
        let address = format!("{address}:0");
        move || Ok(TcpListener::bind(address)?)
    })?;
    let target = listener.local_addr()?;
    let echo = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut block = [0; BLOCK];
        while stream.read_exact(&mut block).is_ok() {
            stream.write_all(&block[..1])?;
        }
        Ok(())
    });
    let mut stream = inside(from, move || Ok(TcpStream::connect(target)?))?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(rounds);
    let block = [7; BLOCK];
    for _ in 0..rounds {
        let start = Instant::now();
        stream.write_all(&block)?;
        stream.read_exact(&mut [0; 1])?;
        times.push(start.elapsed());
    }
    drop(stream);
    echo.join().ok().context("The echo panicked.")??;
    Ok(times)
}

/// The time of one O_DIRECT write of a block with fdatasync (if `sync`) into `file`, at each of `offsets`.
///
/// # Errors
/// The file system refuses.
pub fn direct_writes(file: &Path, size: u64, offsets: &[u64], sync: bool) -> Result<Vec<Duration>> {
    let disk = direct(file, size)?;
    let page = Box::new(Page([9; BLOCK]));
    offsets
        .iter()
        .map(|offset| {
            let start = Instant::now();
            disk.write_all_at(&page.0, *offset)?;
            if sync {
                disk.sync_data()?;
            }
            Ok(start.elapsed())
        })
        .collect()
}

/// The time of one O_DIRECT read of a block at each of `offsets`.
///
/// # Errors
/// The file system refuses.
pub fn direct_reads(file: &Path, size: u64, offsets: &[u64]) -> Result<Vec<Duration>> {
    let disk = direct(file, size)?;
    let mut page = Box::new(Page([0; BLOCK]));
    offsets
        .iter()
        .map(|offset| {
            let start = Instant::now();
            disk.read_exact_at(&mut page.0, *offset)?;
            Ok(start.elapsed())
        })
        .collect()
}

/// Opens the file; a new one is filled, so that no write has to allocate.
fn direct(file: &Path, size: u64) -> Result<File> {
    if std::fs::metadata(file).is_ok_and(|data| data.len() == size) {
        return open(file);
    }
    let mut fresh = File::create(file)?;
    let chunk = vec![1; 1 << 20];
    for _ in 0..size >> 20 {
        fresh.write_all(&chunk)?;
    }
    fresh.sync_all()?;
    open(file)
}

fn open(file: &Path) -> Result<File> {
    let flags = nix::libc::O_DIRECT;
    let opened = File::options().read(true).write(true).custom_flags(flags).open(file);
    opened.with_context(|| format!("Cannot open {} past the page cache.", file.display()))
}

/// Runs `work` on a thread inside a network namespace. A socket stays in the namespace it was made in.
fn inside<T: Send + 'static>(space: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let space = File::open(format!("/run/netns/{space}"))?;
    let thread = thread::spawn(move || {
        setns(space, CloneFlags::CLONE_NEWNET).context("The namespace cannot be entered.")?;
        work()
    });
    thread.join().ok().context("The thread in the namespace panicked.")?
}
