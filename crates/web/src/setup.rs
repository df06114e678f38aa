//! The wizard: one question on each page, in the sequence and with the checks of `dyad-wizard`. The answers so far are hidden
//! fields of the form; instead of a password the form has a token. Until setup begins the node keeps only passwords, in
//! memory.

use crate::pages::{Frame, render};
use crate::state::SharedService;
use crate::{pages::size, pending_passwords::PendingPasswords};
use askama::Template;
use axum::extract::{Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use dyad_api::{ApiError, SetupPhase, SetupReply, StepState};
use dyad_wizard::{Answers, Kind, QUESTIONS, Question, QuestionId, Surroundings, next, suggestion};
use std::sync::Arc;

/// The state that the handlers of the wizard share.
#[derive(Clone)]
pub(crate) struct Wizard {
    pub(crate) service: SharedService,
    pub(crate) pending_passwords: Arc<PendingPasswords>,
}

/// The answers so far, and the token of the password.
#[derive(Default)]
struct Progress {
    answers: Answers,
    token: Option<String>,
}

/// One choice of a question, as a radio button or a check box.
struct ChoiceEntry {
    value: String,
    label: String,
    /// Further information in small print.
    note: String,
    chosen: bool,
    usable: bool,
}

#[derive(Template)]
#[template(path = "question.html")]
struct QuestionPage {
    frame: Frame,
    /// Number of the question on this page, from 1.
    number: usize,
    question: &'static Question,
    /// The `type` attribute of the input elements.
    input_type: &'static str,
    /// Whether the answer is chosen from `entries`; otherwise it is typed.
    is_list: bool,
    entries: Vec<ChoiceEntry>,
    suggestion: String,
    /// The text to type for the erasing of the disks.
    confirmation: Option<String>,
    hidden_fields: Vec<(&'static str, String)>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "summary.html")]
struct SummaryPage {
    frame: Frame,
    rows: Vec<(&'static str, String)>,
    /// Paths of the disks that setup erases.
    disks: String,
    hidden_fields: Vec<(&'static str, String)>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "progress.html")]
struct ProgressPage {
    frame: Frame,
    setup: SetupReply,
    /// The status sentence.
    sentence: String,
    /// Whether no setup runs.
    finished: bool,
    /// Whether the node belongs to a pair.
    running: bool,
}

impl ProgressPage {
    /// Whether the page shall reload itself: it does unless setup has failed.
    fn reloads(&self) -> bool {
        self.setup.task.as_ref().is_none_or(|task| task.error.is_none())
    }

    fn css_class(&self, state: &StepState) -> &'static str {
        match state {
            StepState::Waiting => "idle",
            StepState::Running => "busy",
            StepState::Done => "good",
            StepState::Failed => "bad",
        }
    }
}

/// Shows the first question.
pub(crate) async fn begin(State(wizard): State<Wizard>) -> Response {
    let service = &wizard.service;
    if let Some(redirect) = redirect_unless_blank(service).await {
        return redirect;
    }
    // The error of a seed file or of an earlier setup is shown above the first question.
    let failed = service.setup().await.ok().and_then(|setup| setup.task).and_then(|task| task.error);
    show_next(service, Progress::default(), failed.map(RefusedAnswer::from).unwrap_or_default()).await
}

/// Handles a form of the wizard: the answers so far, the answer to one question, and the button pressed.
pub(crate) async fn answer(State(wizard): State<Wizard>, Form(fields): Form<Vec<(String, String)>>) -> Response {
    let Wizard { service, pending_passwords } = &wizard;
    if let Some(redirect) = redirect_unless_blank(service).await {
        return redirect;
    }
    let surroundings = match service.surroundings().await {
        Ok(surroundings) => surroundings,
        Err(error) => return show_next(service, Progress::default(), error.into()).await,
    };
    let value = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let mut so_far = Progress::default();
    for question in QUESTIONS {
        let Some(hidden) = value(&format!("kept-{}", question.key)) else { continue };
        let secret = question.kind == Kind::Secret;
        let text = if secret { pending_passwords.get(hidden) } else { Some(hidden.to_owned()) };
        // This answer was accepted before. It may be refused now, if disks or ports have changed since; then its question is
        // asked again.
        let set = text.is_some_and(|text| so_far.answers.set(question.id, &text, &surroundings).is_ok());
        if secret && set {
            so_far.token = Some(hidden.to_owned());
        }
    }
    match value("button") {
        Some("back") => {
            let last = QUESTIONS.iter().rev().find(|q| so_far.answers.get(q.id).is_some());
            if let Some(question) = last {
                so_far.answers.remove(question.id);
            }
            return show_next(service, so_far, RefusedAnswer::default()).await;
        }
        Some("begin") => {
            return match service.begin_setup(so_far.answers.clone()).await {
                Ok(_) => {
                    pending_passwords.clear();
                    Redirect::to("/setup/progress").into_response()
                }
                Err(error) => show_next(service, so_far, error.into()).await,
            };
        }
        _ => {}
    }
    let asked = value("question").and_then(|key| QUESTIONS.iter().find(|q| q.key == key));
    let Some(question) = asked else {
        return show_next(service, so_far, RefusedAnswer::default()).await;
    };
    // Several checked boxes are one answer of several words.
    let typed: Vec<&str> = fields.iter().filter(|(name, _)| name == "answer").map(|(_, v)| v.as_str()).collect();
    let typed = typed.join(" ");
    let error = so_far.answers.set(question.id, &typed, &surroundings).err().map(|problem| problem.to_string());
    if error.is_none() && question.kind == Kind::Secret {
        so_far.token = Some(pending_passwords.keep(&typed));
    }
    let typed = error.is_some().then_some(typed);
    show_next(service, so_far, RefusedAnswer { typed, error }).await
}

/// On a node that is not blank, the redirect to the page that shows its state.
async fn redirect_unless_blank(service: &SharedService) -> Option<Response> {
    match service.setup().await.ok()?.phase {
        SetupPhase::Blank => None,
        SetupPhase::SettingUp => Some(Redirect::to("/setup/progress").into_response()),
        SetupPhase::Running | SetupPhase::Broken => Some(Redirect::to("/").into_response()),
    }
}

/// A refused answer and its error; both absent if the last answer was accepted.
#[derive(Default)]
struct RefusedAnswer {
    typed: Option<String>,
    error: Option<String>,
}

impl From<ApiError> for RefusedAnswer {
    fn from(error: ApiError) -> Self {
        Self { typed: None, error: Some(error.error) }
    }
}

/// Shows the next question, or the summary when none is left.
async fn show_next(
    service: &SharedService,
    so_far: Progress,
    RefusedAnswer { typed, error }: RefusedAnswer,
) -> Response {
    let frame = Frame::new(&service.status(false), false, "setup");
    let surroundings = service.surroundings().await.unwrap_or_default();
    let hidden_fields = hidden_fields(&so_far);
    let answers = so_far.answers;
    let Some(question) = next(&answers, &surroundings) else {
        let disks = answers.get(QuestionId::Disks).unwrap_or_default().to_owned();
        return render(&SummaryPage { frame, rows: answers.summary(), disks, hidden_fields, error });
    };
    let suggestion = typed.or_else(|| suggestion(question.id, &answers, &surroundings)).unwrap_or_default();
    let input_type = match question.kind {
        Kind::Choice(_) | Kind::Port | Kind::Offer => "radio",
        Kind::Disks | Kind::Links => "checkbox",
        Kind::Secret => "password",
        Kind::Text => "text",
    };
    let entries = entries(question, &suggestion, &surroundings);
    let confirmation = if question.id == QuestionId::Erase { answers.confirmation() } else { None };
    // A password is never sent back to the browser.
    let suggestion = if question.kind == Kind::Secret { String::new() } else { suggestion };
    let number = hidden_fields.len() + 1;
    let is_list = !matches!(question.kind, Kind::Secret | Kind::Text);
    render(&QuestionPage {
        frame,
        number,
        question,
        input_type,
        is_list,
        entries,
        suggestion,
        confirmation,
        hidden_fields,
        error,
    })
}

/// The hidden fields of the form: key and text of each answer so far, for the password its token instead of the text.
fn hidden_fields(so_far: &Progress) -> Vec<(&'static str, String)> {
    let field = |q: &'static Question| {
        let text = so_far.answers.get(q.id)?.to_owned();
        Some((q.key, if q.kind == Kind::Secret { so_far.token.clone()? } else { text }))
    };
    QUESTIONS.iter().filter_map(field).collect()
}

fn entries(question: &Question, suggestion: &str, surroundings: &Surroundings) -> Vec<ChoiceEntry> {
    let chosen = |value: &str| suggestion.split_whitespace().any(|word| word == value);
    let plain = |value: &str, label: &str, note: String| ChoiceEntry {
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

fn disk_entry(disk: &dyad_wizard::Disk, chosen: bool) -> ChoiceEntry {
    let view = dyad_api::DiskView::from(disk);
    let label = [view.path.as_str(), &size(&view.bytes), &view.model].join("  ");
    ChoiceEntry { value: view.path, label, note: view.content, chosen, usable: view.usable }
}

/// Shows the steps of the running or last setup.
pub(crate) async fn progress(State(service): State<SharedService>) -> Result<Response, ApiErrorPage> {
    let setup = service.setup().await.map_err(ApiErrorPage)?;
    let status = service.status(false);
    let running = matches!(setup.phase, SetupPhase::Running);
    let finished = setup.task.as_ref().is_none_or(|task| task.finished);
    if matches!(setup.phase, SetupPhase::Blank) && setup.task.is_none() {
        return Ok(Redirect::to("/setup").into_response());
    }
    let frame = Frame::new(&status, false, "setup");
    Ok(render(&ProgressPage { frame, setup, sentence: status.sentence, finished, running }))
}

/// A response of plain text with the sentence of an error.
pub(crate) struct ApiErrorPage(ApiError);

impl IntoResponse for ApiErrorPage {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.0.http_status())
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        (status, self.0.error).into_response()
    }
}
