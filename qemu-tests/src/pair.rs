//! A whole installation on the rig: two nodes, their cables, the witness, the guests, and the measured figures.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use anyhow::{Context as _, Result};

use crate::accelerator::Accelerator;
use crate::artifacts::{Artifacts, CountingGuest, keep_as_failed};
use crate::guest::Guest;
use crate::harness::MachineFixture;
use crate::http::Client;
use crate::node::{Node, NodeName, Wiring};
use crate::report::Report;
use crate::seed::PASSWORD;
use crate::stall_detector::StallDetector;
use crate::status::Status;
use crate::timeline_follower::TimelineFollower;
use crate::wait::{self, Poll};
use crate::witness::Witness;

/// Two nodes and a witness on this machine. Dropping it ends them.
#[derive(Debug)]
pub struct Pair {
    /// Node A, powered on or off.
    pub a: Node,
    /// Node B, powered on or off.
    pub b: Node,
    /// The witness, a process beside both nodes.
    pub witness: Witness,
    /// The cables between the nodes.
    pub wiring: Wiring,
    /// The figures measured until now.
    pub report: Report,
    artifacts: Artifacts,
    clients: [Client; 2],
    guests: Vec<Guest>,
    records: PathBuf,
    start: Instant,
    stall_detector: StallDetector,
    // Declared last, so that it is dropped last: the programs above use the sockets.
    sockets: Sockets,
}

/// A temporary folder for unix sockets, whose paths may have 107 bytes at most. Dropping it removes the folder.
#[derive(Debug)]
pub struct Sockets(PathBuf);

impl Sockets {
    /// Creates the folder; `name` tells several folders of one process apart.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn new(name: &str) -> Result<Self> {
        let folder = env::temp_dir().join(format!("dyad-{name}-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
        Ok(Self(folder))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // A folder that stays behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl MachineFixture for Pair {
    fn record_outcome(&mut self, test: &str, failed: bool) {
        self.record_timelines(failed);
        for name in [NodeName::A, NodeName::B] {
            // A test may pass in spite of it: the watchdog resets the node, and its VMs start again.
            for panic in self.node(name).new_kernel_panics() {
                println!("    the kernel of node {name} panicked: {panic}");
            }
        }
        if failed {
            self.report_failure(test);
        }
    }
}

impl Pair {
    /// Creates two nodes with the appliance image, powered off, and starts a witness. `name` is the folder of records.
    ///
    /// # Errors
    /// Something was not built, or a program does not start.
    pub fn new(artifacts: Artifacts, name: &str) -> Result<Self> {
        let image = artifacts.image();
        Self::with(artifacts, name, &image, Wiring::new()?)
    }

    /// As [`Pair::new`], with [one processor](Node::use_one_processor) in each node: for tests of the setup.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn for_setup(artifacts: Artifacts, name: &str) -> Result<Self> {
        let mut pair = Self::new(artifacts, name)?;
        pair.a.use_one_processor();
        pair.b.use_one_processor();
        Ok(pair)
    }

    /// As [`Pair::new`], with the fault agent in both nodes, and cables that can lose data.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn for_faults(artifacts: Artifacts, name: &str) -> Result<Self> {
        let image = artifacts.fault_agent_image();
        Self::with(artifacts, name, &image, Wiring::with_relays()?)
    }

    fn with(artifacts: Artifacts, name: &str, image: &Path, wiring: Wiring) -> Result<Self> {
        artifacts.check()?;
        let records = artifacts.fresh_records(name)?;
        let sockets = Sockets::new(name)?;
        let accelerator = Accelerator::by_trial_boot(&artifacts.guest(CountingGuest::Bare), sockets.path())?;
        let node = |name| Node::new(name, accelerator, image, &wiring, &records, sockets.path());
        let (a, b) = (node(NodeName::A)?, node(NodeName::B)?);
        let witness = Witness::new(&artifacts.programs().join("dyad-witness"), &records, sockets.path())?;
        let clients = [&a, &b].map(|node| Client::new(&node.address()).as_administrator(PASSWORD));
        let mut report = Report::default();
        report.set("accelerator", accelerator.to_string());
        // Allocated bytes, without the holes of the sparse file: the partitions are mostly empty.
        report.set("image_bytes", fs::metadata(image)?.blocks() * 512);
        Ok(Self {
            a,
            b,
            witness,
            wiring,
            report,
            artifacts,
            clients,
            guests: Vec::new(),
            records,
            start: Instant::now(),
            stall_detector: StallDetector::start(),
            sockets,
        })
    }

    pub fn node(&mut self, name: NodeName) -> &mut Node {
        match name {
            NodeName::A => &mut self.a,
            NodeName::B => &mut self.b,
        }
    }

    /// A client of one node's API with the administrator's password. All clients of a node share one login.
    pub fn client(&self, name: NodeName) -> Client {
        self.client_of(name).clone()
    }

    fn client_of(&self, name: NodeName) -> &Client {
        match name {
            NodeName::A => &self.clients[0],
            NodeName::B => &self.clients[1],
        }
    }

    /// The status of the pair as one node reports it, with all details.
    ///
    /// # Errors
    /// As [`Status::in_detail`].
    pub fn status(&self, name: NodeName) -> Result<Status> {
        Status::in_detail(self.client_of(name))
    }

    /// Writes the timeline of each node that answers to `timeline-a.log` and `timeline-b.log`; it begins at the node's
    /// boot.
    ///
    /// After a success a node that is off or booting is waited for shortly. After a failure the wait is long, because the
    /// timeline may explain the failure.
    fn record_timelines(&self, failed: bool) {
        for name in [NodeName::A, NodeName::B] {
            let client = self.client(name);
            let client = if failed { client } else { client.probing() };
            let Ok(timeline) = client.get("timeline?since=0") else { continue };
            let events = timeline["events"].as_array().cloned().unwrap_or_default();
            let line = |event: &serde_json::Value| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{:>9} ms {:16} {}\n", event["boot_ms"], text("kind"), text("text"))
            };
            let lines: String = events.iter().map(line).collect();
            // A log that cannot be written must not stop the test.
            let _ = fs::write(self.records.join(format!("timeline-{}.log", name.letter())), lines);
        }
    }

    /// Prints and saves the state after a failed `test`: stalls of this machine, resets, status and VMs of both nodes,
    /// and the newest lines of every guest.
    fn report_failure(&mut self, test: &str) {
        let mut state = format!("after {test}\n{}\n", self.stall_detector.summary());
        for name in [NodeName::A, NodeName::B] {
            let resets = self.node(name).reset_events().unwrap_or_else(|error| format!("{error:#}"));
            state += &format!("resets of node {name}: {resets}\n");
        }
        for name in [NodeName::A, NodeName::B] {
            let client = self.client_of(name);
            let said =
                |answer: Result<serde_json::Value>| answer.map_or_else(|error| format!("{error:#}"), |v| v.to_string());
            let status = Status::in_detail(client).map(|status| status.json);
            state += &format!("node {name}: {}\nVMs: {}\n", said(status), said(client.get("vms")));
        }
        for guest in &self.guests {
            state += &format!("guest {}:\n{}\n", guest.name(), guest.last_serial_lines());
        }
        println!("{state}");
        if let Err(error) = keep_as_failed(&self.records, &state) {
            println!("{error:#}");
        }
    }

    /// The guest of this name.
    ///
    /// # Errors
    /// The guest was never created: an earlier scenario failed.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        let found = self.guests.iter().find(|guest| guest.name() == name);
        found.cloned().with_context(|| format!("The guest {name} was never made: an earlier step failed."))
    }

    /// Begins to read a guest's serial line on both nodes.
    ///
    /// # Errors
    /// The log file cannot be created.
    pub fn follow_guest(&mut self, name: &str) -> Result<Guest> {
        let guest = Guest::new(name, &self.records.join(format!("guest-{name}.log")))?;
        for node in [NodeName::A, NodeName::B] {
            guest.follow(node, self.client(node).probing());
        }
        self.guests.push(guest.clone());
        Ok(guest)
    }

    /// A follower of one node's timeline, which has read nothing yet.
    pub fn timeline_follower(&self, name: NodeName) -> TimelineFollower {
        TimelineFollower::new(self.client(name))
    }

    /// Paths of the built files that this pair uses.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The folder with disks and logs of this run.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// The folder with the sockets of this run.
    pub fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// Prints a line with the time since this pair was created.
    pub fn print_line(&self, what: &str) {
        println!("[{:7.1} s] {what}", self.start.elapsed().as_secs_f64());
    }

    /// Waits until the status of both nodes says that the pair is protected.
    ///
    /// # Errors
    /// The deadline passed; the error holds the sentences of their status.
    pub fn wait_protected(&self, deadline: Duration) -> Result<()> {
        wait::until("both nodes to be protected", deadline, || {
            let mut sentences = Vec::new();
            for name in [NodeName::A, NodeName::B] {
                match Status::read(self.client_of(name)) {
                    Ok(status) if status.protected => {}
                    Ok(status) => sentences.push(format!("{name}: {}", status.sentence)),
                    Err(error) => sentences.push(format!("{name}: {error:#}")),
                }
            }
            Ok(if sentences.is_empty() { Poll::Ready(()) } else { Poll::NotYet(sentences.join(" | ")) })
        })
    }

    /// Counts lost acknowledged writes and double runs of all guests and puts the counts into the report.
    ///
    /// # Errors
    /// A count is not 0.
    pub fn check_guests(&mut self) -> Result<()> {
        let (mut lost, mut runners, mut error) = (0, 0, Vec::new());
        for guest in &self.guests {
            let record = guest.record();
            lost += record.lost_acked_writes();
            runners += record.two_runners();
            error.extend(record.errors().iter().map(|line| format!("{}: {line}", guest.name())));
        }
        self.report.set_max("lost_acked_writes", lost);
        self.report.set_max("two_runners_observed", runners);
        anyhow::ensure!(lost == 0, "{lost} acknowledged writes were lost. {}", error.join("; "));
        anyhow::ensure!(runners == 0, "A guest ran on both nodes at one time, {runners} times.");
        Ok(())
    }
}
