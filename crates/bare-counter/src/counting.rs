//! The guest's work, and the lines that it prints; `dyad-linux-counter` lists them.

use core::time::Duration;

use dyad_counter::{BLOCK, BootNumber, DATA_OFFSET, SLOTS, STRIDE, Slot, Survey, decode, encode, offset};

use crate::clock::{self, Clock};
use crate::disk::{Disk, DiskError};
use crate::interrupts;
use crate::serial::SerialLine;

/// Pause between two writes, as in the guest with Linux.
const WRITE_INTERVAL: Duration = Duration::from_millis(150);
const TICK_INTERVAL: Duration = Duration::from_millis(250);
const TICKS_PER_BOOT_LINE: u64 = 8;
/// Pause before a request that failed is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Number of counters between two checks that read a block back.
const CHECK_INTERVAL_COUNTERS: u64 = 16;

/// Counts until the disk cannot be read, and returns why.
pub fn count(line: &mut SerialLine) -> DiskError {
    interrupts::enable();
    let ticks = Ticks { clock: Clock::measure(), boot: clock::boot_number(), printed: 0 };
    // The BIOS's last message may lack its line end.
    line.say(format_args!(""));
    line.say(format_args!("boot {:016x}", ticks.boot));
    match Disk::open() {
        Ok(disk) => Counter { line, ticks, disk }.run(),
        Err(error) => error,
    }
}

/// The lines `tick N`, which the guest prints also while a request is pending.
struct Ticks {
    clock: Clock,
    boot: u64,
    printed: u64,
}

impl Ticks {
    fn print_due(&mut self, line: &mut SerialLine) {
        let due = (self.clock.now().as_millis() / TICK_INTERVAL.as_millis()) as u64;
        // Ticks that were due while the guest did not run are never printed.
        if due <= self.printed {
            return;
        }
        self.printed = due;
        line.say(format_args!("tick {due}"));
        if due.is_multiple_of(TICKS_PER_BOOT_LINE) {
            line.say(format_args!("boot {:016x}", self.boot));
        }
    }

    fn sleep(&mut self, line: &mut SerialLine) {
        interrupts::sleep();
        self.print_due(line);
    }
}

struct Counter<'a> {
    line: &'a mut SerialLine,
    ticks: Ticks,
    disk: Disk,
}

impl Counter<'_> {
    fn run(&mut self) -> DiskError {
        match self.resume() {
            Ok(newest) => self.count_from(newest),
            Err(error) => error,
        }
    }

    /// Reads the ring and reports what is wrong in it; returns the newest counter.
    fn resume(&mut self) -> Result<u64, DiskError> {
        let mut slots = [Slot::Blank; SLOTS as usize];
        let mut block = [0; BLOCK];
        for (index, slot) in (0..).zip(&mut slots) {
            self.disk.read(DATA_OFFSET + index * STRIDE, &mut block, &mut || self.ticks.sleep(self.line))?;
            *slot = decode(&block);
        }
        let survey = Survey::new(&slots);
        for fault in survey.faults() {
            self.line.say(format_args!("fault {fault}"));
        }
        self.line.say(format_args!("resume {}", survey.newest));
        Ok(survey.newest)
    }

    fn count_from(&mut self, resumed: u64) -> DiskError {
        let mut longest = Duration::ZERO;
        let mut next_write = self.ticks.clock.now();
        for counter in resumed + 1.. {
            self.sleep_until(next_write);
            let start = self.ticks.clock.now();
            self.write_until_flushed(counter);
            let end = self.ticks.clock.now();
            next_write = end + WRITE_INTERVAL;
            let took = end - start;
            self.line.say(format_args!("ack {counter} {}", took.as_millis()));
            if took > longest {
                longest = took;
                self.line.say(format_args!("pause_ms {}", longest.as_millis()));
            }
            if counter.is_multiple_of(CHECK_INTERVAL_COUNTERS) {
                if let Err(error) = self.check(counter) {
                    return error;
                }
                self.line.say(format_args!("boot {:016x}", self.ticks.boot));
                self.line.say(format_args!("resume {resumed}"));
            }
        }
        unreachable!("a counter of 64 bits does not end")
    }

    fn sleep_until(&mut self, time: Duration) {
        while self.ticks.clock.now() < time {
            self.ticks.sleep(self.line);
            self.disk.end_interrupt();
        }
    }

    /// Writes and flushes the counter until both succeed. Each error is reported: the pair promises that a guest gets none.
    fn write_until_flushed(&mut self, counter: u64) {
        let block = encode(counter, BootNumber(self.ticks.boot));
        while let Err(error) = self.write(counter, &block) {
            self.line.say(format_args!("io_error counter {counter}: {error}"));
            let retry = self.ticks.clock.now() + RETRY_DELAY;
            self.sleep_until(retry);
        }
    }

    fn write(&mut self, counter: u64, block: &[u8; BLOCK]) -> Result<(), DiskError> {
        self.disk.write(offset(counter), block, &mut || self.ticks.sleep(self.line))?;
        self.disk.flush(&mut || self.ticks.sleep(self.line))
    }

    /// Reads the flushed counter back. Any other content is a lost write, damage, or the write of a second copy of the guest.
    fn check(&mut self, counter: u64) -> Result<(), DiskError> {
        let mut block = [0; BLOCK];
        self.disk.read(offset(counter), &mut block, &mut || self.ticks.sleep(self.line))?;
        let read = decode(&block);
        if read != (Slot::Counter { counter, boot: self.ticks.boot }) {
            self.line.say(format_args!("fault counter {counter} read back as {read:?}"));
        }
        Ok(())
    }
}
