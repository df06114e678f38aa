//! The answers given so far.

use std::collections::BTreeMap;

use crate::Id;

/// Answers by question; each has passed its own check. `Debug` hides secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Id, String>);

impl Answers {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The checked form of an answer.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// Keeps a checked answer.
    pub(crate) fn insert(&mut self, id: Id, checked: String) {
        self.0.insert(id, checked);
    }

    /// Removes one answer, so that its question is asked again.
    pub fn forget(&mut self, id: Id) {
        self.0.remove(&id);
    }

    /// All answers, in the order of the questions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &str)> {
        self.0.iter().map(|(id, text)| (*id, text.as_str()))
    }
}
