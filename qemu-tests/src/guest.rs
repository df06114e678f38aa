//! Records of the guests' serial lines, kept outside the pair. From them the rig counts acknowledged writes that were
//! lost, and guests that ran on two nodes at once.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::http::Client;
use crate::node::NodeName;
use crate::wait::{self, Poll};

/// Pause between the end of a followed serial line and the next attempt: a VM that does not run on a node has no line
/// there.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// Number of a guest's newest lines that the report on a failed step contains.
const REPORTED_SERIAL_LINES: usize = 15;

/// One line that a counting guest prints on the guest's serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLine {
    /// `boot N`: the guest booted; N is a random number that names this boot.
    Boot(u64),
    /// `resume N`: N is the newest counter that the guest found on its disk at boot.
    Resume(u64),
    /// `tick N`: printed at an interval, also while a write waits; N grows. It shows that the guest executes.
    Tick(u64),
    /// `ack N MS`: the counter N is written and flushed.
    Ack {
        /// Value that the guest wrote.
        counter: u64,
        /// Time that write and flush took together.
        took: Duration,
    },
    /// `fault`, `io_error` or `error`: the guest found lost data, or its disk returned an error. Each such line fails a
    /// test.
    Error(String),
}

impl GuestLine {
    /// Parses one complete line; `None` for the output of other programs, such as the guest's kernel or firmware.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim().split_once(' ')?;
        match word {
            // A line that was cut off would name another boot.
            "boot" if rest.len() == 16 => u64::from_str_radix(rest, 16).ok().map(Self::Boot),
            "resume" => rest.parse().ok().map(Self::Resume),
            "tick" => rest.parse().ok().map(Self::Tick),
            "ack" => {
                let (counter, took) = rest.split_once(' ')?;
                Some(Self::Ack { counter: counter.parse().ok()?, took: Duration::from_millis(took.parse().ok()?) })
            }
            "fault" | "io_error" | "error" => Some(Self::Error(line.trim().to_owned())),
            _ => None,
        }
    }
}

/// One boot of a guest, from the lines that reached the rig. Times are times of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestBoot {
    /// Random number that the guest drew at this boot.
    pub id: u64,
    /// The node that the lines came from.
    pub node: NodeName,
    /// Arrival of the line `boot`.
    pub first_line_at: Instant,
    /// Arrival of the newest `ack`; of the line `boot` if there is none.
    pub last_ack_at: Instant,
    /// Arrival of the newest line that shows execution: `tick` or `ack`; of the line `boot` if there is none.
    pub last_executed_at: Instant,
    /// The newest tick; 0 = none.
    pub last_tick: u64,
    /// The newest counter that it found on its disk; `None` = the line `resume` has not arrived.
    pub resumed_counter: Option<u64>,
    /// The newest counter that it acknowledged; 0 = none.
    pub acked_counter: u64,
}

/// All boots, acknowledgements and errors of one guest, from both nodes.
#[derive(Debug, Default)]
pub struct GuestRecord {
    boots: Vec<GuestBoot>,
    acks: Vec<(Instant, u64, Duration)>,
    errors: Vec<String>,
}

impl GuestRecord {
    /// Adds one line that arrived `at` this time from `node`. `current` is the boot that lines of this connection
    /// belong to. A node repeats old lines when the rig connects again; a repeated line changes nothing.
    pub fn take(&mut self, at: Instant, node: NodeName, current: &mut Option<u64>, said: GuestLine) {
        match said {
            GuestLine::Boot(id) => {
                *current = Some(id);
                if !self.boots.iter().any(|boot| boot.id == id) {
                    self.boots.push(GuestBoot {
                        id,
                        node,
                        first_line_at: at,
                        last_ack_at: at,
                        last_executed_at: at,
                        last_tick: 0,
                        resumed_counter: None,
                        acked_counter: 0,
                    });
                }
            }
            GuestLine::Resume(counter) => {
                if let Some(boot) = self.boot(*current) {
                    // The guest repeats this line; the end of the VM may cut off the last copy, which then shows a
                    // smaller number.
                    boot.resumed_counter.get_or_insert(counter);
                }
            }
            GuestLine::Ack { counter, took } => {
                if let Some(boot) = self.boot(*current)
                    && counter > boot.acked_counter
                {
                    boot.acked_counter = counter;
                    (boot.last_ack_at, boot.last_executed_at) = (at, at);
                    self.acks.push((at, counter, took));
                }
            }
            GuestLine::Tick(number) => {
                if let Some(boot) = self.boot(*current)
                    && number > boot.last_tick
                {
                    (boot.last_tick, boot.last_executed_at) = (number, at);
                }
            }
            GuestLine::Error(line) => {
                if !self.errors.contains(&line) {
                    self.errors.push(line);
                }
            }
        }
    }

    fn boot(&mut self, id: Option<u64>) -> Option<&mut GuestBoot> {
        self.boots.iter_mut().find(|boot| Some(boot.id) == id)
    }

    /// All boots, in the order of their first lines.
    pub fn boots(&self) -> &[GuestBoot] {
        &self.boots
    }

    /// The newest acknowledged counter; 0 = none.
    pub fn acked_counter(&self) -> u64 {
        self.boots.iter().map(|boot| boot.acked_counter).max().unwrap_or(0)
    }

    /// Number of acknowledged writes that a later boot did not find on its disk, plus the number of error lines.
    pub fn lost_acked_writes(&self) -> u64 {
        let mut acked: u64 = 0;
        let mut lost = self.errors.len() as u64;
        for boot in &self.boots {
            if let Some(resumed) = boot.resumed_counter {
                lost += acked.saturating_sub(resumed);
            }
            acked = acked.max(boot.acked_counter);
        }
        lost
    }

    /// Number of pairs of boots that ran at one time: the earlier boot still executed after the later boot had begun.
    pub fn two_runners(&self) -> u64 {
        let mut seen = 0;
        for (index, early) in self.boots.iter().enumerate() {
            for late in &self.boots[index + 1..] {
                seen += u64::from(early.last_executed_at > late.first_line_at);
            }
        }
        seen
    }

    /// The error lines that the guest printed.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The longest time that a write with its flush took, among those acknowledged after `since`; 0 if there is none.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        self.acks.iter().filter(|(at, _, _)| *at > since).map(|(_, _, took)| *took).max().unwrap_or_default()
    }

    /// The first acknowledgement that arrived after `since`: its time and its counter.
    pub fn first_ack(&self, since: Instant) -> Option<(Instant, u64)> {
        self.acks.iter().find(|(at, _, _)| *at > since).map(|(at, counter, _)| (*at, *counter))
    }
}

/// A guest whose serial line the rig reads from one or both nodes. Clones share one record.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    record: Arc<Mutex<GuestRecord>>,
    log: Arc<Mutex<File>>,
    log_path: PathBuf,
    start: Instant,
}

impl Guest {
    /// A record of the VM `name` that also writes its lines to `log`; [`Guest::follow`] adds the nodes to read from.
    ///
    /// # Errors
    /// The log cannot be made.
    pub fn new(name: &str, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("Cannot create {}.", log.display()))?;
        Ok(Self {
            name: name.to_owned(),
            record: Arc::default(),
            log: Arc::new(Mutex::new(file)),
            log_path: log.to_owned(),
            start: Instant::now(),
        })
    }

    /// The VM's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the VM's serial line on `node`, whenever the VM runs there, until the rig ends.
    pub fn follow(&self, node: NodeName, client: Client) {
        let guest = self.clone();
        thread::spawn(move || {
            loop {
                // The node's copy of the line may begin in the middle of a boot.
                let mut current = None;
                let path = format!("vms/{}/serial/log?follow=1", guest.name);
                // While the VM does not run on this node there is no line to follow, which is no error.
                let _ = client.follow(&path, |line| {
                    guest.take(node, &mut current, line);
                    true
                });
                thread::sleep(RECONNECT_DELAY);
            }
        });
    }

    /// The record of all lines until now, locked.
    pub fn record(&self) -> MutexGuard<'_, GuestRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node on which the guest booted last.
    ///
    /// # Errors
    /// It has not booted yet.
    pub fn node(&self) -> Result<NodeName> {
        Ok(self.record().boots().last().with_context(|| format!("{} never ran.", self.name))?.node)
    }

    /// The newest lines of the guest's serial log, for the report on a failed step.
    pub fn last_serial_lines(&self) -> String {
        let text = fs::read(&self.log_path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(REPORTED_SERIAL_LINES)..].join("\n")
    }

    /// Waits for an acknowledgement that arrives after `since`; returns its time of arrival and its counter.
    ///
    /// # Errors
    /// None arrived within `deadline`.
    pub fn wait_for_ack(&self, since: Instant, deadline: Duration) -> Result<(Instant, u64)> {
        wait::until(&format!("guest {} to count", self.name), deadline, || {
            let record = self.record();
            Ok(match record.first_ack(since) {
                Some(ack) => Poll::Ready(ack),
                None => {
                    Poll::NotYet(format!("{} boots, newest counter {}", record.boots().len(), record.acked_counter()))
                }
            })
        })
    }

    /// Waits for a boot of the guest after `since` and for its first acknowledgement; returns the time and the counter
    /// of that acknowledgement.
    ///
    /// # Errors
    /// None came within `deadline`.
    pub fn wait_for_restart(&self, since: Instant, deadline: Duration) -> Result<(Instant, u64)> {
        let begin = wait::until(&format!("guest {} to boot again", self.name), deadline, || {
            let record = self.record();
            Ok(match record.boots().iter().find(|boot| boot.first_line_at > since) {
                Some(boot) => Poll::Ready(boot.first_line_at),
                None => Poll::NotYet(format!("{} boots before", record.boots().len())),
            })
        })?;
        self.wait_for_ack(begin, deadline)
    }

    /// Waits until the newest acknowledged counter has grown by `more`; returns it.
    ///
    /// # Errors
    /// It did not within `deadline`.
    pub fn wait_for_progress(&self, more: u64, deadline: Duration) -> Result<u64> {
        let goal = self.record().acked_counter() + more;
        wait::until(&format!("guest {} to reach {goal}", self.name), deadline, || {
            let acked = self.record().acked_counter();
            Ok(if acked >= goal { Poll::Ready(acked) } else { Poll::NotYet(format!("counter {acked}")) })
        })
    }

    fn take(&self, node: NodeName, current: &mut Option<u64>, line: &str) {
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk under the log must not stop the recording in memory.
            let _ = writeln!(log, "[{:8.2} s] {node} {line}", self.start.elapsed().as_secs_f64());
        }
        if let Some(said) = GuestLine::parse(line) {
            self.record().take(Instant::now(), node, current, said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct RecordFixture {
        record: GuestRecord,
        now: Instant,
        current: [Option<u64>; 2],
    }

    impl RecordFixture {
        fn new() -> Self {
            Self { record: GuestRecord::default(), now: Instant::now(), current: [None; 2] }
        }

        fn line(&mut self, node: NodeName, line: &str) {
            self.now += Duration::from_secs(1);
            let current = &mut self.current[usize::from(node == NodeName::B)];
            let line = match line.strip_prefix("boot ") {
                Some(id) => format!("boot {id:0>16}"),
                None => line.to_owned(),
            };
            let said = GuestLine::parse(&line).unwrap();
            self.record.take(self.now, node, current, said);
        }
    }

    #[test]
    fn lines_of_other_programs_are_not_parsed() {
        for noise in ["", "ack 12", "ack 12 x", "SeaBIOS (version 1.16)", "boot 61f29b82c1001bzz", "boot 61f29b82"] {
            assert_eq!(GuestLine::parse(noise), None, "{noise:?}");
        }
    }

    #[test]
    fn a_clean_fail_over_loses_nothing() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5"] {
            fixture.line(NodeName::A, line);
        }
        for line in ["boot b", "resume 3", "ack 4 7"] {
            fixture.line(NodeName::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 0);
        assert_eq!(fixture.record.two_runners(), 0);
        assert_eq!(fixture.record.acked_counter(), 4);
    }

    #[test]
    fn a_lost_write_is_counted() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5", "ack 3 5"] {
            fixture.line(NodeName::A, line);
        }
        for line in ["boot b", "resume 1", "fault slot 2 holds Blank, expected 2"] {
            fixture.line(NodeName::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 3);
    }

    #[test]
    fn a_resume_cut_short_is_no_lost_write() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5"] {
            fixture.line(NodeName::A, line);
        }
        for line in ["boot b", "resume 2", "ack 3 5", "boot b", "resume 2", "ack 16 5", "boot b", "resume 1"] {
            fixture.line(NodeName::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 0);
    }

    #[test]
    fn two_boots_that_run_at_one_time_are_counted() {
        let mut fixture = RecordFixture::new();
        fixture.line(NodeName::A, "boot a");
        fixture.line(NodeName::A, "ack 1 5");
        fixture.line(NodeName::B, "boot b");
        fixture.line(NodeName::A, "ack 2 5");
        assert_eq!(fixture.record.two_runners(), 1);
    }

    #[test]
    fn a_second_runner_whose_writes_wait_is_found_by_its_ticks() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "tick 1", "ack 1 5", "tick 2"] {
            fixture.line(NodeName::A, line);
        }
        fixture.line(NodeName::B, "boot b");
        assert_eq!(fixture.record.two_runners(), 0);
        fixture.line(NodeName::A, "tick 2");
        assert_eq!(fixture.record.two_runners(), 0, "a repeated line");
        fixture.line(NodeName::A, "tick 3");
        assert_eq!(fixture.record.two_runners(), 1);
    }

    #[test]
    fn a_repeated_line_is_ignored() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5"] {
            fixture.line(NodeName::A, line);
        }
        fixture.line(NodeName::B, "boot b");
        for line in ["boot a", "resume 0", "ack 1 5"] {
            fixture.line(NodeName::A, line);
        }
        assert_eq!(fixture.record.two_runners(), 0);
        assert_eq!(fixture.record.boots().len(), 2);
    }

    #[test]
    fn the_longest_pause_counts_writes_after_the_start_only() {
        let mut fixture = RecordFixture::new();
        fixture.line(NodeName::A, "boot a");
        fixture.line(NodeName::A, "ack 1 900");
        let since = fixture.now;
        fixture.line(NodeName::A, "ack 2 20");
        fixture.line(NodeName::A, "ack 3 70");
        assert_eq!(fixture.record.longest_pause(since), Duration::from_millis(70));
        assert_eq!(fixture.record.first_ack(since).unwrap().1, 2);
    }
}
