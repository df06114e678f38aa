//! Reads a node's timeline and converts the times of its events to the rig's clock.
//!
//! A node dates its events by its own time since boot. An event cannot arrive before it happened, so the arrival of an
//! event minus its time since boot is never earlier than the boot. The earliest of these values over all events is
//! taken as the time of the boot; its error is the delay of the event that was fetched fastest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::http::Client;
use crate::wait::{self, Poll};

/// Interval between two polls. Events carry their own time, and each poll costs an emulated node a noticeable part of
/// a processor.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// One event of a node's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Word of a closed list (`docs/manual/timeline.md`).
    pub kind: String,
    /// Sentence for people.
    pub text: String,
    /// Milliseconds since the node started.
    pub boot_ms: u64,
}

/// The timeline of one boot of a node: events since that boot, as far as the node still holds them.
#[derive(Debug)]
pub struct TimelineFollower {
    client: Client,
    next: u64,
    events: Vec<Event>,
    /// When each of `events` was fetched.
    fetched_at: Vec<Instant>,
    node_booted_at: Option<Instant>,
}

impl TimelineFollower {
    /// A follower of the node behind `client`, which has read nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, next: 0, events: Vec::new(), fetched_at: Vec::new(), node_booted_at: None }
    }

    /// Fetches the events since the last poll.
    ///
    /// # Errors
    /// The node does not answer, or not in the API's shape.
    pub fn poll(&mut self) -> Result<()> {
        let answer = self.client.get(&format!("timeline?since={}", self.next))?;
        self.take(&answer, Instant::now())
    }

    fn take(&mut self, answer: &Value, now: Instant) -> Result<()> {
        let events = answer["events"].as_array().with_context(|| format!("The timeline is {answer}."))?;
        for event in events {
            let boot_ms = event["boot_ms"].as_u64().context("An event has no time.")?;
            self.next = event["number"].as_u64().context("An event has no number.")? + 1;
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            self.fetched_at.push(now);
            self.events.push(Event { kind: text("kind"), text: text("text"), boot_ms });
            if let Some(node_booted_at) = now.checked_sub(Duration::from_millis(boot_ms)) {
                self.node_booted_at =
                    Some(self.node_booted_at.map_or(node_booted_at, |known| known.min(node_booted_at)));
            }
        }
        Ok(())
    }

    /// Time of an event on the rig's clock; `None` before the first event was fetched.
    pub fn when(&self, event: &Event) -> Option<Instant> {
        Some(self.node_booted_at? + Duration::from_millis(event.boot_ms))
    }

    /// The events fetched until now, oldest first.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn first_after(&self, kind: &str, since: Instant) -> Option<(Event, Instant)> {
        // Times on the rig's clock are late by the delay of the fastest answer.
        let tolerance = Duration::from_millis(200);
        let events = self.events.iter().zip(&self.fetched_at);
        events
            // While only old events were fetched, they all seem to be new. What was fetched before `since` is older.
            .filter(|(event, fetched_at)| event.kind == kind && **fetched_at > since)
            .find_map(|(event, _)| {
                Some((event.clone(), self.when(event)?)).filter(|(_, when)| *when + tolerance > since)
            })
    }

    /// Waits for the first event of this kind that happened after `since`; returns it with its time.
    ///
    /// # Errors
    /// None came within `deadline`; the error holds the newest events.
    pub fn wait(&mut self, kind: &str, since: Instant, deadline: Duration) -> Result<(Event, Instant)> {
        wait::until_every(POLL_INTERVAL, &format!("`{kind}` in the timeline"), deadline, || {
            // A loaded node may miss the deadline of one poll; the next poll asks for the same events.
            let polled = self.poll();
            if let Some(found) = self.first_after(kind, since) {
                return Ok(Poll::Ready(found));
            }
            let newest: Vec<_> = self.events.iter().rev().take(5).map(|event| event.text.as_str()).collect();
            Ok(Poll::NotYet(format!("{newest:?} {}", polled.err().map(|e| e.to_string()).unwrap_or_default())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_fetched_before_the_time_in_question_is_not_taken_for_a_later_one() {
        let mut timeline_follower = TimelineFollower::new(Client::new("https://127.0.0.1:1"));
        let begin = Instant::now();
        let event = |number: u64, boot_ms: u64| json!({"events": [{"number": number, "boot_ms": boot_ms, "kind": "epoch", "text": "t"}]});
        let after = |ms| begin + Duration::from_millis(ms);
        // It is a minute old, which the follower cannot know.
        timeline_follower.take(&event(1, 10_000), after(100)).unwrap();
        assert_eq!(timeline_follower.first_after("epoch", after(150)), None);
        timeline_follower.take(&event(2, 72_000), after(2_300)).unwrap();
        let (_, when) = timeline_follower.first_after("epoch", after(150)).unwrap();
        assert_eq!(when, after(2_300));
    }

    #[test]
    fn the_time_of_the_boot_comes_from_the_event_fetched_fastest() {
        let mut timeline_follower = TimelineFollower::new(Client::new("https://127.0.0.1:1"));
        let start = Instant::now() + Duration::from_secs(1_000);
        let event = |number: u64, boot_ms: u64| json!({"events": [{"number": number, "boot_ms": boot_ms, "kind": "k", "text": "t"}]});
        // The first event is fetched 30 s late, the second 50 ms late.
        timeline_follower.take(&event(1, 1_000), start + Duration::from_secs(31)).unwrap();
        timeline_follower.take(&event(2, 40_000), start + Duration::from_millis(40_050)).unwrap();
        let when = timeline_follower.when(&timeline_follower.events()[1]).unwrap();
        assert_eq!(when - start, Duration::from_millis(40_050));
        assert_eq!(timeline_follower.next, 3);
    }
}
