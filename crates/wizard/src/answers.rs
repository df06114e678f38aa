//! The answers that were given so far, by question.

use std::collections::BTreeMap;

use crate::QuestionId;

/// The answers by question. Each has passed the check of its question. `Debug` hides secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<QuestionId, String>);

impl Answers {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer to a question in its stored form; `None`: not answered.
    #[must_use]
    pub fn get(&self, id: QuestionId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// Stores an answer that was checked.
    pub(crate) fn insert(&mut self, id: QuestionId, checked: String) {
        self.0.insert(id, checked);
    }

    /// Removes one answer, so that its question is asked again.
    pub fn remove(&mut self, id: QuestionId) {
        self.0.remove(&id);
    }

    /// All answers, in the order of the questions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QuestionId, &str)> {
        self.0.iter().map(|(id, text)| (*id, text.as_str()))
    }
}
