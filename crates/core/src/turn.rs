//! The times of one turn of the quorum thread: they say what a late heartbeat waited for.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// What a turn of the quorum thread consists of, in this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnStep {
    /// The datagram that ended the wait is handled.
    Datagram,
    /// The inputs of other threads are handled.
    Inputs,
    /// Datagrams that have already arrived are read, and the quorum machine looks at its deadlines.
    Deadlines,
    /// The watchdog is fed.
    Watchdog,
    /// The kernel is asked for interfaces that appeared or vanished.
    Interfaces,
    /// The state is compared with what `CoreState` knows.
    Report,
}

impl fmt::Display for TurnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datagram => "datagram",
            Self::Inputs => "inputs",
            Self::Deadlines => "deadlines",
            Self::Watchdog => "watchdog",
            Self::Interfaces => "interfaces",
            Self::Report => "report",
        })
    }
}

/// A turn that delayed the heartbeats.
#[derive(Debug, Clone, Copy)]
pub struct LateTurn {
    /// Time for which the thread waited for a processor beyond the sleep that it had asked for.
    pub waited: Duration,
    /// Time from the end of that wait to the end of the turn.
    pub worked: Duration,
    /// Processor time of the thread within `worked`. If it is much less than `worked`, the thread waited in the kernel.
    /// Interrupts count as processor time.
    pub on_processor: Duration,
    /// The step that took most of `worked`.
    pub longest_step: TurnStep,
}

impl fmt::Display for LateTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "their thread was not scheduled for {} ms and then worked for {} ms, {} ms of them on a processor, longest on: {}",
            self.waited.as_millis(),
            self.worked.as_millis(),
            self.on_processor.as_millis(),
            self.longest_step
        )
    }
}

/// Measures one turn.
#[derive(Debug)]
pub struct TurnTimer {
    begin: Instant,
    processor_time_at_begin: Duration,
    step_begin: Instant,
    longest: (Duration, TurnStep),
}

impl TurnTimer {
    /// Begins a turn of the calling thread.
    pub fn begin() -> Self {
        let begin = Instant::now();
        let longest = (Duration::ZERO, TurnStep::Inputs);
        Self { begin, processor_time_at_begin: thread_processor_time(), step_begin: begin, longest }
    }

    /// Ends a step; the next one begins.
    pub fn end_step(&mut self, step: TurnStep) {
        let now = Instant::now();
        self.longest = std::cmp::max_by_key(self.longest, (now - self.step_begin, step), |(length, _)| *length);
        self.step_begin = now;
    }

    /// Ends the turn. If it took longer than `limit` together with the delay `waited` before it, the result tells where the
    /// time went.
    pub fn late(&self, waited: Duration, limit: Duration) -> Option<LateTurn> {
        let worked = self.begin.elapsed();
        (waited + worked > limit).then(|| LateTurn {
            waited,
            worked,
            on_processor: thread_processor_time().saturating_sub(self.processor_time_at_begin),
            longest_step: self.longest.1,
        })
    }
}

fn thread_processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE_DELAY: Duration = Duration::from_millis(50);

    #[test]
    fn a_late_turn_names_its_longest_step_and_tells_waiting_from_work() {
        let mut timer = TurnTimer::begin();
        timer.end_step(TurnStep::Inputs);
        // The step itself: a call that waits in the kernel.
        std::thread::sleep(Duration::from_millis(60));
        timer.end_step(TurnStep::Watchdog);
        timer.end_step(TurnStep::Report);
        let late = timer.late(Duration::ZERO, LATE_DELAY).expect("the turn took 60 ms");
        assert_eq!(late.longest_step, TurnStep::Watchdog);
        assert!(late.worked >= Duration::from_millis(60), "{late:?}");
        assert!(late.on_processor < Duration::from_millis(50), "{late:?}");
    }

    #[test]
    fn work_counts_as_processor_time() {
        let mut timer = TurnTimer::begin();
        while thread_processor_time() < timer.processor_time_at_begin + Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        timer.end_step(TurnStep::Deadlines);
        let late = timer.late(Duration::ZERO, LATE_DELAY).expect("the turn took 60 ms");
        assert!(late.on_processor >= Duration::from_millis(60), "{late:?}");
    }

    #[test]
    fn the_delay_before_a_turn_counts_as_well() {
        let timer = TurnTimer::begin();
        assert!(timer.late(Duration::from_millis(60), LATE_DELAY).is_some());
    }
}
