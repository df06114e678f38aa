//! The wizard: one question on each page, in the order and with the checks of `dyad-wizard`. The answers so far are
//! hidden fields of the form; of a password the form has only a token. The node stores nothing before the last page.

use crate::pages::{Frame, page};
use crate::state::Shared;
use crate::{pages::size, pending_passwords::PendingPasswords};
use askama::Template;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use dyad_api::{ApiError, SetupPhase, SetupReply, StepState};
use dyad_wizard::{Answers, Kind, QUESTIONS, Question, QuestionId, Surroundings, next, suggestion};
use std::sync::Arc;

/// State that the wizard's handlers share.
#[derive(Clone)]
pub(crate) struct Wizard {
    pub(crate) service: Shared,
    pub(crate) pending_passwords: Arc<PendingPasswords>,
}

/// The answers so far, and the token for the password among them.
#[derive(Default)]
struct Progress {
    answers: Answers,
    token: Option<String>,
}

/// A choice on a page.
struct Entry {
    value: String,
    label: String,
    note: String,
    chosen: bool,
    usable: bool,
}

#[derive(Template)]
#[template(path = "question.html")]
struct QuestionPage {
    frame: Frame,
    number: usize,
    question: &'static Question,
    control: &'static str,
    listed: bool,
    entries: Vec<Entry>,
    suggestion: String,
    confirmation: Option<String>,
    kept: Vec<(&'static str, String)>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "summary.html")]
struct SummaryPage {
    frame: Frame,
    rows: Vec<(&'static str, String)>,
    erased: String,
    kept: Vec<(&'static str, String)>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "progress.html")]
struct ProgressPage {
    frame: Frame,
    setup: SetupReply,
    sentence: String,
    finished: bool,
    running: bool,
}

impl ProgressPage {
    /// Whether the page reloads itself: it does until setup fails.
    fn reloads(&self) -> bool {
        self.setup.task.as_ref().is_none_or(|task| task.error.is_none())
    }

    fn mark(&self, state: &StepState) -> &'static str {
        match state {
            StepState::Waiting => "idle",
            StepState::Running => "busy",
            StepState::Done => "good",
            StepState::Failed => "bad",
        }
    }
}

pub(crate) async fn begin(State(wizard): State<Wizard>) -> Response {
    let service = &wizard.service;
    if let Some(elsewhere) = not_blank(service).await {
        return elsewhere;
    }
    // The error of a seed file or of an earlier setup.
    let failed = service.setup().await.ok().and_then(|setup| setup.task).and_then(|task| task.error);
    ask(service, Progress::default(), failed.map(Refused::from).unwrap_or_default()).await
}

/// Handles a form of the wizard: the answers so far, the answer to one question, and the button pressed.
pub(crate) async fn answer(State(wizard): State<Wizard>, Form(fields): Form<Vec<(String, String)>>) -> Response {
    let Wizard { service, pending_passwords } = &wizard;
    if let Some(elsewhere) = not_blank(service).await {
        return elsewhere;
    }
    let surroundings = match service.surroundings().await {
        Ok(surroundings) => surroundings,
        Err(error) => return ask(service, Progress::default(), error.into()).await,
    };
    let value = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let mut so_far = Progress::default();
    for question in QUESTIONS {
        let Some(kept) = value(&format!("kept-{}", question.key)) else { continue };
        let secret = question.kind == Kind::Secret;
        let text = if secret { pending_passwords.get(kept) } else { Some(kept.to_owned()) };
        // A kept answer was accepted before. If the disks or ports changed since, it may be refused now; its question
        // is asked again.
        let set = text.is_some_and(|text| so_far.answers.set(question.id, &text, &surroundings).is_ok());
        if secret && set {
            so_far.token = Some(kept.to_owned());
        }
    }
    match value("button") {
        Some("back") => {
            let last = QUESTIONS.iter().rev().find(|q| so_far.answers.get(q.id).is_some());
            if let Some(question) = last {
                so_far.answers.remove(question.id);
            }
            return ask(service, so_far, Refused::default()).await;
        }
        Some("begin") => {
            return match service.begin_setup(so_far.answers.clone()).await {
                Ok(_) => {
                    pending_passwords.clear();
                    Redirect::to("/setup/progress").into_response()
                }
                Err(error) => ask(service, so_far, error.into()).await,
            };
        }
        _ => {}
    }
    let asked = value("question").and_then(|key| QUESTIONS.iter().find(|q| q.key == key));
    let Some(question) = asked else { return ask(service, so_far, Refused::default()).await };
    // Several checked boxes are one answer of several words.
    let typed: Vec<&str> = fields.iter().filter(|(name, _)| name == "answer").map(|(_, v)| v.as_str()).collect();
    let typed = typed.join(" ");
    let error = so_far.answers.set(question.id, &typed, &surroundings).err().map(|problem| problem.to_string());
    if error.is_none() && question.kind == Kind::Secret {
        so_far.token = Some(pending_passwords.keep(&typed));
    }
    let typed = error.is_some().then_some(typed);
    ask(service, so_far, Refused { typed, error }).await
}

async fn not_blank(service: &Shared) -> Option<Response> {
    match service.setup().await.ok()?.phase {
        SetupPhase::Blank => None,
        SetupPhase::SettingUp => Some(Redirect::to("/setup/progress").into_response()),
        SetupPhase::Running | SetupPhase::Broken => Some(Redirect::to("/").into_response()),
    }
}

/// The answer that was refused, and why.
#[derive(Default)]
struct Refused {
    typed: Option<String>,
    error: Option<String>,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { typed: None, error: Some(error.error) }
    }
}

/// Shows the next question, or the summary when none is left.
async fn ask(service: &Shared, so_far: Progress, Refused { typed, error }: Refused) -> Response {
    let frame = Frame::new(&service.status(false), false, "setup");
    let surroundings = service.surroundings().await.unwrap_or_default();
    let kept = kept(&so_far);
    let answers = so_far.answers;
    let Some(question) = next(&answers, &surroundings) else {
        let erased = answers.get(QuestionId::Disks).unwrap_or_default().to_owned();
        return page(&SummaryPage { frame, rows: answers.summary(), erased, kept, error });
    };
    let suggestion = typed.or_else(|| suggestion(question.id, &answers, &surroundings)).unwrap_or_default();
    let control = match question.kind {
        Kind::Choice(_) | Kind::Port | Kind::Offer => "radio",
        Kind::Disks | Kind::Links => "checkbox",
        Kind::Secret => "password",
        Kind::Text => "text",
    };
    let entries = entries(question, &suggestion, &surroundings);
    let confirmation = if question.id == QuestionId::Erase { answers.confirmation() } else { None };
    // A password is never sent back to the browser.
    let suggestion = if question.kind == Kind::Secret { String::new() } else { suggestion };
    let number = kept.len() + 1;
    let listed = !matches!(question.kind, Kind::Secret | Kind::Text);
    page(&QuestionPage { frame, number, question, control, listed, entries, suggestion, confirmation, kept, error })
}

/// The hidden fields of the form: the answers, and for a secret its token.
fn kept(so_far: &Progress) -> Vec<(&'static str, String)> {
    let kept = |q: &'static Question| {
        let text = so_far.answers.get(q.id)?.to_owned();
        Some((q.key, if q.kind == Kind::Secret { so_far.token.clone()? } else { text }))
    };
    QUESTIONS.iter().filter_map(kept).collect()
}

fn entries(question: &Question, suggestion: &str, surroundings: &Surroundings) -> Vec<Entry> {
    let chosen = |value: &str| suggestion.split_whitespace().any(|word| word == value);
    let plain = |value: &str, label: &str, note: String| Entry {
        value: value.into(),
        label: label.into(),
        note,
        chosen: chosen(value),
        usable: true,
    };
    match question.kind {
        Kind::Choice(choices) => choices.iter().map(|c| plain(c.value, c.label, String::new())).collect(),
        Kind::Port => surroundings.ports.iter().map(|p| plain(p, p, String::new())).collect(),
        Kind::Offer => {
            let note = |node: &str| format!("first node: {node}");
            surroundings.offers.iter().map(|o| plain(&o.pair_id, &o.pair, note(&o.node))).collect()
        }
        Kind::Links => {
            let note = |up: bool| if up { "cable connected".into() } else { "no cable".into() };
            surroundings.links.iter().map(|l| plain(&l.name, &l.name, note(l.up))).collect()
        }
        Kind::Disks => surroundings.disks.iter().map(|disk| disk_entry(disk, chosen(&disk.path))).collect(),
        Kind::Text | Kind::Secret => Vec::new(),
    }
}

fn disk_entry(disk: &dyad_wizard::Disk, chosen: bool) -> Entry {
    let view = dyad_api::DiskView::from(disk);
    let label = [view.path.as_str(), &size(&view.bytes), &view.model].join("  ");
    Entry { value: view.path, label, note: view.content, chosen, usable: view.usable }
}

pub(crate) async fn progress(State(service): State<Shared>) -> Result<Response, ApiErrorPage> {
    let setup = service.setup().await.map_err(ApiErrorPage)?;
    let status = service.status(false);
    let running = matches!(setup.phase, SetupPhase::Running);
    let finished = setup.task.as_ref().is_none_or(|task| task.finished);
    if matches!(setup.phase, SetupPhase::Blank) && setup.task.is_none() {
        return Ok(Redirect::to("/setup").into_response());
    }
    let frame = Frame::new(&status, false, "setup");
    Ok(page(&ProgressPage { frame, setup, sentence: status.sentence, finished, running }))
}

/// A page that shows only an error sentence.
pub(crate) struct ApiErrorPage(ApiError);

impl IntoResponse for ApiErrorPage {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.0.http_status())
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.0.error).into_response()
    }
}
