//! The setting of answers from typed texts, and their summary without secrets.

use std::fmt;

use crate::{
    Answers, Kind, Problem, QUESTIONS, QuestionId, Surroundings, check, confirmation, question, question::allowed,
};

impl Answers {
    /// Checks a typed text and stores it as the answer. Other answers that no longer fit are removed, so that their
    /// questions are asked again.
    ///
    /// # Errors
    /// The [`Problem`] with the text; the answers are unchanged.
    pub fn set(&mut self, id: QuestionId, text: &str, surroundings: &Surroundings) -> Result<(), Problem> {
        let checked = check::check(id, text, self, surroundings)?;
        if self.get(id) == Some(&checked) {
            return Ok(());
        }
        self.insert(id, checked);
        if id == QuestionId::Disks {
            self.remove(QuestionId::Erase);
        }
        let unfit: Vec<QuestionId> =
            self.iter().map(|(other, _)| other).filter(|other| !allowed(*other, self, surroundings)).collect();
        for other in unfit {
            self.remove(other);
        }
        Ok(())
    }

    /// The text that a person must type to confirm that the chosen disks are erased; `None`: no disks were chosen.
    #[must_use]
    pub fn confirmation(&self) -> Option<String> {
        self.get(QuestionId::Disks).map(confirmation)
    }

    /// Title and answer of each answered question, for the summary; secrets as stars.
    #[must_use]
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let shown = |id: QuestionId, text: &str| match question(id).kind {
            Kind::Secret => "********".to_owned(),
            Kind::Choice(choices) => {
                choices.iter().find(|c| c.value == text).map_or_else(|| text.to_owned(), |c| c.label.to_owned())
            }
            _ if text.is_empty() => "none".to_owned(),
            _ => text.to_owned(),
        };
        let answered = QUESTIONS.iter().filter(|q| q.id != QuestionId::Erase);
        answered.filter_map(|q| self.get(q.id).map(|text| (q.title, shown(q.id, text)))).collect()
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(id, text)| match question(id).kind {
            Kind::Secret => (question(id).key, "***"),
            _ => (question(id).key, text),
        });
        f.debug_map().entries(shown).finish()
    }
}
