//! The system calls of init for which no crate offers a safe function.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

nix::ioctl_readwrite!(watchdog_set_timeout, b'W', 6, libc::c_int);
nix::ioctl_read!(watchdog_keep_alive, b'W', 5, libc::c_int);
nix::ioctl_none!(block_reread_partitions, 0x12, 95);

/// `LOOP_SET_FD` of linux/loop.h.
const LOOP_SET_FD: libc::Ioctl = 0x4C00;

/// Connects a loop device to the file `image`, so that it can be mounted as a disk.
pub fn loop_attach(device: &File, image: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call; the kernel keeps its own reference to `image`.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, image.as_raw_fd()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel read the partition table of a disk again. The kernel refuses while a partition of the disk is in use.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument and the descriptor is open.
    unsafe { block_reread_partitions(disk.as_raw_fd()) }?;
    Ok(())
}

/// Sets the period of a watchdog in seconds, and feeds it, so that the first period begins now. Returns the period that the
/// device granted, which may differ.
pub fn watchdog_period(descriptor: RawFd, seconds: i32) -> io::Result<i32> {
    let mut value: libc::c_int = seconds;
    // SAFETY: the kernel reads and writes one int, which lives until the call returns.
    unsafe { watchdog_set_timeout(descriptor, &mut value) }?;
    // The kernel does this itself in some versions. The bound of the watchdog test relies on it.
    watchdog_feed(descriptor)?;
    Ok(value)
}

/// Resets the timer of a watchdog once.
pub fn watchdog_feed(descriptor: RawFd) -> io::Result<()> {
    let mut value: libc::c_int = 0;
    // SAFETY: the kernel may write one int, which lives until the call returns.
    unsafe { watchdog_keep_alive(descriptor, &mut value) }?;
    Ok(())
}

/// Keeps `file` open as descriptor `number` for the life of this process. Started programs do not inherit it.
pub fn keep_as(file: File, number: RawFd) -> io::Result<()> {
    if file.as_raw_fd() == number {
        let _ = file.into_raw_fd();
        return Ok(());
    }
    // SAFETY: no other code of this process owns `number`: `watchdog::reserve_descriptor` took it before this process
    // opened any file that stays open.
    let result = unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the flag `IFF_UP` of a network interface.
pub fn interface_up(name: &str) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid: plain bytes and integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, source) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *target = source as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the kernel reads one ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Options of a new process that [`Command`] does not have.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpawnOptions {
    /// Whether its standard input is a terminal that becomes its controlling terminal.
    pub terminal: bool,
    /// A descriptor that the process inherits under the same number.
    pub inherit: Option<RawFd>,
}

/// Starts `command` in a new session, with no signal blocked.
pub fn spawn(command: &mut Command, options: SpawnOptions) -> io::Result<std::process::Child> {
    let prepare = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        if options.terminal {
            // SAFETY: descriptor 0 is open; the argument 1 takes the terminal from a session that may still hold it.
            if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 1) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(number) = options.inherit {
            // SAFETY: sets the flags of one descriptor of the child, which is single-threaded here.
            if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls: it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
