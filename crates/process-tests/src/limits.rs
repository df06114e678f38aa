//! Latencies of the machine itself, measured in the same run as those of the pair: plain TCP between the namespaces,
//! and direct requests to a file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// Bytes of each message and of each disk request, 4096.
pub use dyad_types::BLOCK;

/// A buffer aligned to 4 KiB, as O_DIRECT needs it.
#[repr(C, align(4096))]
struct Page([u8; BLOCK]);

/// The receiving end of [`ping_pong`].
#[derive(Debug, Clone, Copy)]
pub struct Receiver<'a> {
    /// Name of the network namespace.
    pub namespace: &'a str,
    /// IP address in that namespace.
    pub address: &'a str,
}

/// Times of `rounds` exchanges over plain TCP: a block from the namespace `from` to the receiver, and one byte back.
///
/// # Errors
/// The namespaces cannot be entered.
pub fn ping_pong(
    from: &str,
    Receiver { namespace: to, address }: Receiver<'_>,
    rounds: usize,
) -> Result<Vec<Duration>> {
    let listener = in_namespace(to, {
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
    let mut stream = in_namespace(from, move || Ok(TcpStream::connect(target)?))?;
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

/// Times of O_DIRECT writes of one block to `file`, one at each of `offsets`, each with its fdatasync if `sync`.
///
/// # Errors
/// The file system refuses.
pub fn direct_writes(file: &Path, size: u64, offsets: &[u64], sync: bool) -> Result<Vec<Duration>> {
    let disk = open_filled(file, size)?;
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

/// Times of O_DIRECT reads of one block from `file`, one at each of `offsets`.
///
/// # Errors
/// The file system refuses.
pub fn direct_reads(file: &Path, size: u64, offsets: &[u64]) -> Result<Vec<Duration>> {
    let disk = open_filled(file, size)?;
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

/// Opens `file` with O_DIRECT. If it does not have `size` bytes, it is created and filled first, so that no write has to
/// allocate.
fn open_filled(file: &Path, size: u64) -> Result<File> {
    if std::fs::metadata(file).is_ok_and(|data| data.len() == size) {
        return open_direct(file);
    }
    let mut fresh = File::create(file)?;
    let chunk = vec![1; 1 << 20];
    for _ in 0..size >> 20 {
        fresh.write_all(&chunk)?;
    }
    fresh.sync_all()?;
    open_direct(file)
}

fn open_direct(file: &Path) -> Result<File> {
    let flags = nix::libc::O_DIRECT;
    let opened = File::options().read(true).write(true).custom_flags(flags).open(file);
    opened.with_context(|| format!("Cannot open {} past the page cache.", file.display()))
}

/// Runs `work` on a thread inside a network namespace. A socket stays in the namespace in which it was created.
fn in_namespace<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let namespace = File::open(format!("/run/netns/{namespace}"))?;
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("The namespace cannot be entered.")?;
        work()
    });
    thread.join().ok().context("The thread in the namespace panicked.")?
}
