//! A whole installation on the rig: two nodes, their cables, the witness, the guests, and what was measured.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use anyhow::{Context as _, Result};

use crate::accelerator::Accelerator;
use crate::artifacts::{Artifacts, keep_as_failed};
use crate::guest::Guest;
use crate::harness::Fixture;
use crate::http::Client;
use crate::node::{Name, Node, Wiring};
use crate::report::Report;
use crate::seed::PASSWORD;
use crate::stall_detector::StallDetector;
use crate::status::Status;
use crate::timeline_follower::TimelineFollower;
use crate::wait::{self, Look};
use crate::witness::Witness;

/// A pair on the rig.
#[derive(Debug)]
pub struct Pair {
    /// Node A, on or off.
    pub a: Node,
    /// Node B, on or off.
    pub b: Node,
    /// The witness, outside both.
    pub witness: Witness,
    /// What was measured so far.
    pub report: Report,
    artifacts: Artifacts,
    clients: [Client; 2],
    guests: Vec<Guest>,
    records: PathBuf,
    start: Instant,
    stall_detector: StallDetector,
    // Last: the sockets go when everything that uses them is gone.
    sockets: Sockets,
}

/// A short path for unix sockets, removed at the end.
#[derive(Debug)]
pub struct Sockets(PathBuf);

impl Sockets {
    /// Makes it; `name` tells several rigs of one process apart.
    ///
    /// # Errors
    /// It cannot be made.
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
        // What is left behind in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Fixture for Pair {
    fn record(&mut self, test: &str, failed: bool) {
        self.record_timelines(failed);
        if failed {
            self.tell_failure(test);
        }
    }
}

impl Pair {
    /// Flashes two nodes and starts a witness; nothing has power yet. `name` names the folder of records.
    ///
    /// # Errors
    /// Something was not built, or a program does not start.
    pub fn new(artifacts: Artifacts, name: &str) -> Result<Self> {
        let image = artifacts.image();
        Self::with_image(artifacts, name, &image)
    }

    /// The same with another image on both nodes.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn with_image(artifacts: Artifacts, name: &str, image: &Path) -> Result<Self> {
        artifacts.check()?;
        let records = artifacts.fresh_records(name)?;
        let sockets = Sockets::new(name)?;
        let accelerator = Accelerator::by_trial(&artifacts.guest(), sockets.path())?;
        let wiring = Wiring::new()?;
        let node = |name| Node::new(name, accelerator, image, wiring, &records, sockets.path());
        let (a, b) = (node(Name::A)?, node(Name::B)?);
        let witness = Witness::new(&artifacts.programs().join("dyad-witness"), &records, sockets.path())?;
        let clients = [&a, &b].map(|node| Client::new(&node.address()).as_administrator(PASSWORD));
        let mut report = Report::default();
        report.set("accelerator", accelerator.to_string());
        // What has to be stored or sent: the partitions are mostly holes.
        report.set("image_bytes", fs::metadata(image)?.blocks() * 512);
        Ok(Self {
            a,
            b,
            witness,
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

    pub fn node(&mut self, name: Name) -> &mut Node {
        match name {
            Name::A => &mut self.a,
            Name::B => &mut self.b,
        }
    }

    /// The administrator's client of one node. All of them share one login.
    pub fn client(&self, name: Name) -> Client {
        self.client_of(name).clone()
    }

    fn client_of(&self, name: Name) -> &Client {
        match name {
            Name::A => &self.clients[0],
            Name::B => &self.clients[1],
        }
    }

    /// What one node says of the pair.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, name: Name) -> Result<Status> {
        Status::in_detail(self.client_of(name))
    }

    /// Writes down what both nodes remember since they booted, as far as they answer.
    ///
    /// After a success the wait for a node that is away or booting is short; after a failure it is long, because the
    /// answer explains it.
    fn record_timelines(&self, failed: bool) {
        for name in [Name::A, Name::B] {
            let client = self.client(name);
            let client = if failed { client } else { client.probing() };
            let Ok(timeline) = client.get("timeline?since=0") else { continue };
            let events = timeline["events"].as_array().cloned().unwrap_or_default();
            let line = |event: &serde_json::Value| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{:>9} ms {:16} {}\n", event["boot_ms"], text("kind"), text("text"))
            };
            let lines: String = events.iter().map(line).collect();
            // A record that cannot be written must not stop what is recorded.
            let _ = fs::write(self.records.join(format!("timeline-{}.log", name.letter())), lines);
        }
    }

    /// The report on a failure: resets, status and VMs of both nodes, and the last lines of every guest. It is printed
    /// and kept with the records.
    fn tell_failure(&mut self, test: &str) {
        let mut state = format!("after {test}\n{}\n", self.stall_detector.summary());
        for name in [Name::A, Name::B] {
            let resets = self.node(name).resets().unwrap_or_else(|error| format!("{error:#}"));
            state += &format!("resets of node {name}: {resets}\n");
        }
        for name in [Name::A, Name::B] {
            let client = self.client_of(name);
            let said =
                |answer: Result<serde_json::Value>| answer.map_or_else(|error| format!("{error:#}"), |v| v.to_string());
            let status = Status::in_detail(client).map(|status| status.json);
            state += &format!("node {name}: {}\nVMs: {}\n", said(status), said(client.get("vms")));
        }
        for guest in &self.guests {
            state += &format!("guest {}:\n{}\n", guest.name(), guest.last_words());
        }
        println!("{state}");
        if let Err(error) = keep_as_failed(&self.records, &state) {
            println!("{error:#}");
        }
    }

    /// The guest of this name.
    ///
    /// # Errors
    /// It was never made: an earlier scenario failed.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        let found = self.guests.iter().find(|guest| guest.name() == name);
        found.cloned().with_context(|| format!("The guest {name} was never made: an earlier step failed."))
    }

    /// Begins to follow a guest on both nodes.
    ///
    /// # Errors
    /// Its record cannot be made.
    pub fn follow(&mut self, name: &str) -> Result<Guest> {
        let guest = Guest::new(name, &self.records.join(format!("guest-{name}.log")))?;
        for node in [Name::A, Name::B] {
            guest.follow(node, self.client(node).probing());
        }
        self.guests.push(guest.clone());
        Ok(guest)
    }

    /// Begins to read one node's own timeline.
    pub fn timeline_follower(&self, name: Name) -> TimelineFollower {
        TimelineFollower::new(self.client(name))
    }

    /// What was built.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The folder with the records of this run.
    pub fn records(&self) -> &Path {
        &self.records
    }

    /// The folder with the sockets of this run.
    pub fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// Prints one line of the rig's own timeline.
    pub fn say(&self, what: &str) {
        println!("[{:7.1} s] {what}", self.start.elapsed().as_secs_f64());
    }

    /// Waits until both nodes say that the pair is protected.
    ///
    /// # Errors
    /// They do not within `deadline`; the error holds their sentences.
    pub fn wait_protected(&self, deadline: Duration) -> Result<()> {
        wait::until("both nodes to be protected", deadline, || {
            let mut sentences = Vec::new();
            for name in [Name::A, Name::B] {
                match Status::read(self.client_of(name)) {
                    Ok(status) if status.protected => {}
                    Ok(status) => sentences.push(format!("{name}: {}", status.sentence)),
                    Err(error) => sentences.push(format!("{name}: {error:#}")),
                }
            }
            Ok(if sentences.is_empty() { Look::Ready(()) } else { Look::NotYet(sentences.join(" | ")) })
        })
    }

    /// Adds every guest's verdict to the report.
    ///
    /// # Errors
    /// A write was lost or a guest ran twice at one time: the two things that must never happen.
    pub fn judge_guests(&mut self) -> Result<()> {
        let (mut lost, mut runners, mut error) = (0, 0, Vec::new());
        for guest in &self.guests {
            let record = guest.record();
            lost += record.lost_acked_writes();
            runners += record.two_runners();
            error.extend(record.error().iter().map(|line| format!("{}: {line}", guest.name())));
        }
        self.report.raise("lost_acked_writes", lost);
        self.report.raise("two_runners_observed", runners);
        anyhow::ensure!(lost == 0, "{lost} acknowledged writes were lost. {}", error.join("; "));
        anyhow::ensure!(runners == 0, "A guest ran on both nodes at one time, {runners} times.");
        Ok(())
    }
}
