//! The guests' serial lines, recorded outside the pair, and the verdicts on lost writes and double runs drawn from
//! them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::http::Client;
use crate::node::Name;
use crate::wait::{self, Look};

/// Between two attempts to follow the serial line of a VM that does not run.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// Lines of a guest that are shown when something failed.
const LAST_WORDS: usize = 15;

/// One statement of `dyad-counter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestLine {
    /// A boot of the guest, with its random name.
    GuestBoot(u64),
    /// The newest counter found on the disk.
    Resume(u64),
    /// The guest executes; the number grows.
    Tick(u64),
    /// A counter is written and flushed.
    Ack {
        /// Value that the guest wrote.
        counter: u64,
        /// What writing and flushing took.
        took: Duration,
    },
    /// Data was lost, or the disk returned an error: never acceptable.
    Error(String),
}

impl GuestLine {
    /// Understands one whole line; `None` for anything else, such as the guest's kernel or firmware.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim().split_once(' ')?;
        match word {
            // A shortened name would be another name.
            "boot" if rest.len() == 16 => u64::from_str_radix(rest, 16).ok().map(Self::GuestBoot),
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

/// One boot of a guest, as the rig saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestBoot {
    /// Its random name.
    pub id: u64,
    /// The node it ran on.
    pub node: Name,
    /// When its first word arrived.
    pub begin: Instant,
    /// When its newest acknowledgement arrived.
    pub last: Instant,
    /// When its newest sign of execution arrived: a tick or an acknowledgement.
    pub seen: Instant,
    /// The newest tick; 0 = none.
    pub ticks: u64,
    /// The counter it found on the disk.
    pub resumed: Option<u64>,
    /// The newest counter it acknowledged; 0 = none.
    pub acked: u64,
}

/// All statements of one guest.
#[derive(Debug, Default)]
pub struct Record {
    boots: Vec<GuestBoot>,
    acks: Vec<(Instant, u64, Duration)>,
    error: Vec<String>,
}

impl Record {
    /// Takes one statement that arrived `at` this time from `node`. A node may repeat old lines when the rig
    /// connects again; a repeated statement changes nothing.
    pub fn take(&mut self, at: Instant, node: Name, current: &mut Option<u64>, said: GuestLine) {
        match said {
            GuestLine::GuestBoot(id) => {
                *current = Some(id);
                if !self.boots.iter().any(|boot| boot.id == id) {
                    self.boots.push(GuestBoot {
                        id,
                        node,
                        begin: at,
                        last: at,
                        seen: at,
                        ticks: 0,
                        resumed: None,
                        acked: 0,
                    });
                }
            }
            GuestLine::Resume(counter) => {
                if let Some(boot) = self.boot(*current) {
                    // The line is repeated now and then; the end of the VM may cut off the last copy.
                    boot.resumed.get_or_insert(counter);
                }
            }
            GuestLine::Ack { counter, took } => {
                if let Some(boot) = self.boot(*current)
                    && counter > boot.acked
                {
                    boot.acked = counter;
                    (boot.last, boot.seen) = (at, at);
                    self.acks.push((at, counter, took));
                }
            }
            GuestLine::Tick(number) => {
                if let Some(boot) = self.boot(*current)
                    && number > boot.ticks
                {
                    (boot.ticks, boot.seen) = (number, at);
                }
            }
            GuestLine::Error(line) => {
                if !self.error.contains(&line) {
                    self.error.push(line);
                }
            }
        }
    }

    fn boot(&mut self, id: Option<u64>) -> Option<&mut GuestBoot> {
        self.boots.iter_mut().find(|boot| Some(boot.id) == id)
    }

    /// Every boot, in the order seen.
    pub fn boots(&self) -> &[GuestBoot] {
        &self.boots
    }

    /// The newest acknowledged counter; 0 = none.
    pub fn acked(&self) -> u64 {
        self.boots.iter().map(|boot| boot.acked).max().unwrap_or(0)
    }

    /// Acknowledged writes that a later boot did not find, plus every fault the guest itself saw.
    pub fn lost_acked_writes(&self) -> u64 {
        let mut acked: u64 = 0;
        let mut lost = self.error.len() as u64;
        for boot in &self.boots {
            if let Some(resumed) = boot.resumed {
                lost += acked.saturating_sub(resumed);
            }
            acked = acked.max(boot.acked);
        }
        lost
    }

    /// Pairs of boots that were both alive at one time: the first executed after the second had begun.
    pub fn two_runners(&self) -> u64 {
        let mut seen = 0;
        for (index, early) in self.boots.iter().enumerate() {
            for late in &self.boots[index + 1..] {
                seen += u64::from(early.seen > late.begin);
            }
        }
        seen
    }

    /// The faults that the guest reported.
    pub fn error(&self) -> &[String] {
        &self.error
    }

    /// The longest time a write with flush took, among those that ended after `since`.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        self.acks.iter().filter(|(at, _, _)| *at > since).map(|(_, _, took)| *took).max().unwrap_or_default()
    }

    /// The first acknowledgement that arrived after `since`: when, and the counter.
    pub fn first_ack(&self, since: Instant) -> Option<(Instant, u64)> {
        self.acks.iter().find(|(at, _, _)| *at > since).map(|(at, counter, _)| (*at, *counter))
    }
}

/// A guest whose serial line is followed on both nodes.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    record: Arc<Mutex<Record>>,
    log: Arc<Mutex<File>>,
    log_path: PathBuf,
    start: Instant,
}

impl Guest {
    /// Begins to record the VM `name` into `log`; add nodes with [`Guest::follow`].
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

    /// Follows the VM's line on `node` for as long as the rig runs, whenever it runs there.
    pub fn follow(&self, node: Name, client: Client) {
        let guest = self.clone();
        thread::spawn(move || {
            loop {
                // The node's record of the line may begin in the middle of a boot.
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

    /// The record so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest lines of the guest's serial log, for the text of a failure.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log_path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Waits for an acknowledgement that arrives after `since`; returns when it arrived and the counter.
    ///
    /// # Errors
    /// None arrived within `deadline`.
    pub fn wait_for_ack(&self, since: Instant, deadline: Duration) -> Result<(Instant, u64)> {
        wait::until(&format!("guest {} to count", self.name), deadline, || {
            let record = self.record();
            Ok(match record.first_ack(since) {
                Some(ack) => Look::Ready(ack),
                None => Look::NotYet(format!("{} boots, newest counter {}", record.boots().len(), record.acked())),
            })
        })
    }

    /// Waits for a new boot of the guest that began after `since` and counts; returns when it first did, and the
    /// counter.
    ///
    /// # Errors
    /// None came within `deadline`.
    pub fn wait_for_restart(&self, since: Instant, deadline: Duration) -> Result<(Instant, u64)> {
        let begin = wait::until(&format!("guest {} to boot again", self.name), deadline, || {
            let record = self.record();
            Ok(match record.boots().iter().find(|boot| boot.begin > since) {
                Some(boot) => Look::Ready(boot.begin),
                None => Look::NotYet(format!("{} boots before", record.boots().len())),
            })
        })?;
        self.wait_for_ack(begin, deadline)
    }

    /// Waits until the guest counted `more` further; returns the newest counter.
    ///
    /// # Errors
    /// It did not within `deadline`.
    pub fn wait_for_progress(&self, more: u64, deadline: Duration) -> Result<u64> {
        let goal = self.record().acked() + more;
        wait::until(&format!("guest {} to reach {goal}", self.name), deadline, || {
            let acked = self.record().acked();
            Ok(if acked >= goal { Look::Ready(acked) } else { Look::NotYet(format!("counter {acked}")) })
        })
    }

    fn take(&self, node: Name, current: &mut Option<u64>, line: &str) {
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk under the log must not stop the verdicts.
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
        record: Record,
        now: Instant,
        current: [Option<u64>; 2],
    }

    impl RecordFixture {
        fn new() -> Self {
            Self { record: Record::default(), now: Instant::now(), current: [None; 2] }
        }

        fn line(&mut self, node: Name, line: &str) {
            self.now += Duration::from_secs(1);
            let current = &mut self.current[usize::from(node == Name::B)];
            let line = match line.strip_prefix("boot ") {
                Some(id) => format!("boot {id:0>16}"),
                None => line.to_owned(),
            };
            let said = GuestLine::parse(&line).unwrap();
            self.record.take(self.now, node, current, said);
        }
    }

    #[test]
    fn noise_is_not_a_statement() {
        for noise in ["", "ack 12", "ack 12 x", "SeaBIOS (version 1.16)", "boot 61f29b82c1001bzz", "boot 61f29b82"] {
            assert_eq!(GuestLine::parse(noise), None, "{noise:?}");
        }
    }

    #[test]
    fn a_clean_fail_over_loses_nothing() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5"] {
            fixture.line(Name::A, line);
        }
        for line in ["boot b", "resume 3", "ack 4 7"] {
            fixture.line(Name::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 0);
        assert_eq!(fixture.record.two_runners(), 0);
        assert_eq!(fixture.record.acked(), 4);
    }

    #[test]
    fn a_lost_write_is_counted() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5", "ack 3 5"] {
            fixture.line(Name::A, line);
        }
        for line in ["boot b", "resume 1", "fault slot 2 holds Blank, expected 2"] {
            fixture.line(Name::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 3);
    }

    #[test]
    fn a_resume_cut_short_is_no_lost_write() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5", "ack 2 5"] {
            fixture.line(Name::A, line);
        }
        for line in ["boot b", "resume 2", "ack 3 5", "boot b", "resume 2", "ack 16 5", "boot b", "resume 1"] {
            fixture.line(Name::B, line);
        }
        assert_eq!(fixture.record.lost_acked_writes(), 0);
    }

    #[test]
    fn two_runners_are_seen() {
        let mut fixture = RecordFixture::new();
        fixture.line(Name::A, "boot a");
        fixture.line(Name::A, "ack 1 5");
        fixture.line(Name::B, "boot b");
        fixture.line(Name::A, "ack 2 5");
        assert_eq!(fixture.record.two_runners(), 1);
    }

    #[test]
    fn a_runner_whose_disk_is_held_is_seen_by_its_ticks() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "tick 1", "ack 1 5", "tick 2"] {
            fixture.line(Name::A, line);
        }
        fixture.line(Name::B, "boot b");
        assert_eq!(fixture.record.two_runners(), 0);
        fixture.line(Name::A, "tick 2");
        assert_eq!(fixture.record.two_runners(), 0, "a repeated line");
        fixture.line(Name::A, "tick 3");
        assert_eq!(fixture.record.two_runners(), 1);
    }

    #[test]
    fn a_repeated_line_is_ignored() {
        let mut fixture = RecordFixture::new();
        for line in ["boot a", "resume 0", "ack 1 5"] {
            fixture.line(Name::A, line);
        }
        fixture.line(Name::B, "boot b");
        for line in ["boot a", "resume 0", "ack 1 5"] {
            fixture.line(Name::A, line);
        }
        assert_eq!(fixture.record.two_runners(), 0);
        assert_eq!(fixture.record.boots().len(), 2);
    }

    #[test]
    fn the_longest_pause_is_that_of_the_window() {
        let mut fixture = RecordFixture::new();
        fixture.line(Name::A, "boot a");
        fixture.line(Name::A, "ack 1 900");
        let since = fixture.now;
        fixture.line(Name::A, "ack 2 20");
        fixture.line(Name::A, "ack 3 70");
        assert_eq!(fixture.record.longest_pause(since), Duration::from_millis(70));
        assert_eq!(fixture.record.first_ack(since).unwrap().1, 2);
    }
}
