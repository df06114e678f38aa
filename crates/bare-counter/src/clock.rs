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
    /// Measures the counter against the timer three times, each of which takes 50 ms. A measurement counts too much when the
    /// processor is taken away meanwhile, never too little, so the smallest is right.
    pub fn measure() -> Self {
        let first = counter();
        let counts_per_ms = (0..3).map(|_| measured_counts_per_ms()).min().unwrap_or(1);
        Self { first, counts_per_ms: counts_per_ms.max(1) }
    }

    /// The time since the clock began.
    pub fn now(&self) -> Duration {
        Duration::from_millis(counter().saturating_sub(self.first) / self.counts_per_ms)
    }
}

/// The counts of the time-stamp counter in a millisecond, by one measurement.
fn measured_counts_per_ms() -> u64 {
    let counts = (u64::from(TIMER_HZ) * MEASURE_PERIOD.as_millis() as u64 / 1000) as u16;
    // The speaker stays off; the gate starts the channel in mode 0, whose output rises at the end.
    write_port(GATE_PORT, read_port(GATE_PORT) & 0xfc | 1);
    write_port(0x43, 0xb0);
    let [low, high] = counts.to_le_bytes();
    write_port(0x42, low);
    let first = counter();
    // The timer begins with this byte.
    write_port(0x42, high);
    while read_port(GATE_PORT) & 0x20 == 0 {
        core::hint::spin_loop();
    }
    (counter() - first) / MEASURE_PERIOD.as_millis() as u64
}

/// The time-stamp counter.
pub fn counter() -> u64 {
    // SAFETY: all processors of 64 bits have the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A number that differs from one boot to the next: of the processor's generator where it has one, else of the time.
pub fn boot_number() -> u64 {
    // Unsafe in earlier versions of the library.
    #[allow(unused_unsafe)]
    // SAFETY: all processors of 64 bits have the instruction.
    let has_generator = unsafe { core::arch::x86_64::__cpuid(1) }.ecx >> 30 & 1 == 1;
    let mut random: u64 = 0;
    if has_generator {
        // SAFETY: the processor has the instruction. If it has no number ready it stores 0.
        unsafe { core::arch::asm!("rdrand {}", out(reg) random, options(nomem, nostack)) };
    }
    random ^ counter().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
