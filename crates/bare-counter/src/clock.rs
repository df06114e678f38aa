//! Time by the processor's time-stamp counter, whose frequency is measured once.

use core::time::Duration;

use crate::interrupts::{TIMER_HZ, read_port, write_port};

/// Port with the gate (bit 0) and the output (bit 5) of the timer's third channel.
const GATE_PORT: u16 = 0x61;
/// Time over which the frequency is measured. Reading the output takes up to 1 ms in an emulated node: 2 %.
const MEASURE_PERIOD: Duration = Duration::from_millis(50);

/// A clock that begins at zero.
#[derive(Debug)]
pub struct Clock {
    first: u64,
    counts_per_ms: u64,
}

impl Clock {
    /// Measures the counter against the timer, which takes 50 ms.
    pub fn measure() -> Self {
        let counts = (u64::from(TIMER_HZ) * MEASURE_PERIOD.as_millis() as u64 / 1000) as u16;
        // The speaker stays off; the gate starts the channel in mode 0, whose output rises at the end.
        write_port(GATE_PORT, read_port(GATE_PORT) & 0xfc | 1);
        write_port(0x43, 0xb0);
        for byte in counts.to_le_bytes() {
            write_port(0x42, byte);
        }
        let first = counter();
        while read_port(GATE_PORT) & 0x20 == 0 {
            core::hint::spin_loop();
        }
        Self { first, counts_per_ms: ((counter() - first) / MEASURE_PERIOD.as_millis() as u64).max(1) }
    }

    /// The time since the clock began.
    pub fn now(&self) -> Duration {
        Duration::from_millis(counter().saturating_sub(self.first) / self.counts_per_ms)
    }
}

/// The time-stamp counter.
pub fn counter() -> u64 {
    // SAFETY: all processors of 64 bits have the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A number that differs from one boot to the next: of the processor's generator where it has one, else of the time.
pub fn boot_number() -> u64 {
    let has_generator = core::arch::x86_64::__cpuid(1).ecx >> 30 & 1 == 1;
    let mut random: u64 = 0;
    if has_generator {
        // SAFETY: the processor has the instruction. If it has no number ready it stores 0.
        unsafe { core::arch::asm!("rdrand {}", out(reg) random, options(nomem, nostack)) };
    }
    random ^ counter().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
