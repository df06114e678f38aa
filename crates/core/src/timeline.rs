//! The timeline of this node, for people: a bounded list in memory. Each entry is also logged.

use crate::clock;
use dyad_control::{TimelineEvent, TimelineKind};
use dyad_types::{BootTime, NodeId};
use std::collections::VecDeque;

/// Most events kept; after that the oldest one is dropped for each new one.
const MAX_EVENTS: usize = 2_000;

/// The newest [`MAX_EVENTS`] events of this node since its core started.
#[derive(Debug)]
pub struct Timeline {
    events: VecDeque<TimelineEvent>,
    next_number: u64,
    me: Option<NodeId>,
}

impl Timeline {
    /// An empty timeline. `me` is named in each entry; `None` = a blank node.
    pub fn new(me: Option<NodeId>) -> Self {
        Self { events: VecDeque::new(), next_number: 1, me }
    }

    /// Adds an entry that happened now.
    pub fn note(&mut self, kind: TimelineKind, text: impl Into<String>) {
        self.note_at(clock::now(), kind, text);
    }

    /// Adds an entry that happened at `at`.
    pub fn note_at(&mut self, at: BootTime, kind: TimelineKind, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(kind = kind.word(), "{text}");
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(TimelineEvent {
            number: self.next_number,
            boot_ms: at.0 / 1_000_000,
            wall_ms: clock::wall_ms(),
            node: self.me,
            kind,
            text,
        });
        self.next_number += 1;
    }

    /// Entries from number `since` on.
    pub fn since(&self, since: u64) -> Vec<TimelineEvent> {
        self.events.iter().filter(|e| e.number >= since).cloned().collect()
    }
}
