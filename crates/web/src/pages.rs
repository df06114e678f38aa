//! The handlers of all pages except those of the wizard.

use crate::state::SharedService;
use crate::{filters, session};
use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use dyad_api::{ApiError, IntentView, SetupPhase, StatusReply, TimelineEvent, VmState, VmView, VolumeView};

/// The values for the header that all pages share.
pub(crate) struct Frame {
    /// The names of the pair and the node, or "Dyad" on a node without a pair.
    pub title: String,
    /// Whether the browser has a session.
    pub logged_in: bool,
    /// Whether the node belongs to a pair: only then the menu is shown.
    pub has_pair: bool,
    /// The menu entry that is marked as the current page.
    pub menu_entry: &'static str,
}

impl Frame {
    pub(crate) fn new(status: &StatusReply, logged_in: bool, menu_entry: &'static str) -> Self {
        let title = match (&status.pair, &status.node_name) {
            (Some(pair), Some(node)) => format!("{pair} / {node}"),
            _ => "Dyad".into(),
        };
        Self { title, logged_in, has_pair: status.pair.is_some(), menu_entry }
    }
}

/// Renders a page. Rendering fails only because of a programming error.
pub(crate) fn render(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown; restart the node.").into_response(),
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    frame: Frame,
    status: StatusReply,
}

pub(crate) async fn status(State(service): State<SharedService>, headers: HeaderMap) -> Response {
    if let Ok(setup) = service.setup().await {
        match setup.phase {
            SetupPhase::Blank => return Redirect::to("/setup").into_response(),
            SetupPhase::SettingUp => return Redirect::to("/setup/progress").into_response(),
            SetupPhase::Running | SetupPhase::Broken => {}
        }
    }
    let logged_in = session::find(&service, &headers).await.is_some();
    let status = service.status(logged_in);
    render(&StatusPage { frame: Frame::new(&status, logged_in, "status"), status })
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
}

pub(crate) async fn login(State(service): State<SharedService>) -> Response {
    render(&LoginPage { frame: Frame::new(&service.status(false), false, "login") })
}

#[derive(Template)]
#[template(path = "vms.html")]
struct VmsPage {
    frame: Frame,
    vms: Vec<VmView>,
    volumes: Vec<VolumeView>,
    error: Option<ApiError>,
}

impl VmsPage {
    /// Volumes that are no disk of a VM.
    fn free_volumes(&self) -> impl Iterator<Item = &VolumeView> {
        self.volumes.iter().filter(|volume| volume.vm.is_none())
    }

    /// The text and the CSS class for the state of a VM.
    fn state_and_class(&self, vm: &VmView) -> (&'static str, &'static str) {
        match vm.state {
            VmState::Running => ("running", "good"),
            VmState::Starting => ("starting", "busy"),
            VmState::Paused => ("paused", "bad"),
            VmState::Stopping => ("stopping", "busy"),
            VmState::Failed => ("failed", "bad"),
            VmState::Elsewhere if vm.intent == IntentView::Running => ("on the other node", "good"),
            VmState::Elsewhere => ("stopped, on the other node", "idle"),
            VmState::Stopped if vm.intent == IntentView::GuestShutDown => ("shut down by its guest", "idle"),
            VmState::Stopped => ("stopped", "idle"),
        }
    }

    fn shall_run(&self, vm: &VmView) -> bool {
        vm.intent == IntentView::Running
    }

    fn is_on_this_node(&self, vm: &VmView) -> bool {
        vm.state != VmState::Elsewhere
    }
}

pub(crate) async fn vms(State(service): State<SharedService>, headers: HeaderMap) -> Result<Response, Response> {
    session::require(&service, &headers).await?;
    let (vms, volumes) = (service.vms().await, service.volumes().await);
    let error = vms.as_ref().err().or(volumes.as_ref().err()).cloned();
    let frame = Frame::new(&service.status(false), true, "vms");
    let (vms, volumes) = (vms.unwrap_or_default(), volumes.unwrap_or_default());
    Ok(render(&VmsPage { frame, vms, volumes, error }))
}

#[derive(Template)]
#[template(path = "console.html")]
struct ConsolePage {
    frame: Frame,
    name: String,
}

pub(crate) async fn console(
    State(service): State<SharedService>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Response> {
    session::require(&service, &headers).await?;
    Ok(render(&ConsolePage { frame: Frame::new(&service.status(false), true, "vms"), name }))
}

#[derive(Template)]
#[template(path = "volumes.html")]
struct VolumesPage {
    frame: Frame,
    volumes: Vec<VolumeView>,
    error: Option<ApiError>,
}

pub(crate) async fn volumes(State(service): State<SharedService>, headers: HeaderMap) -> Result<Response, Response> {
    session::require(&service, &headers).await?;
    let volumes = service.volumes().await;
    let error = volumes.as_ref().err().cloned();
    let frame = Frame::new(&service.status(false), true, "volumes");
    Ok(render(&VolumesPage { frame, volumes: volumes.unwrap_or_default(), error }))
}

#[derive(Template)]
#[template(path = "timeline.html")]
struct TimelinePage {
    frame: Frame,
    events: Vec<TimelineEvent>,
    error: Option<ApiError>,
}

impl TimelinePage {
    /// The time from the boot of the machine to the event, as `h:mm:ss.mmm`.
    fn time_since_boot(&self, event: &TimelineEvent) -> String {
        let ms = event.boot_ms;
        format!("{}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
    }
}

pub(crate) async fn timeline(State(service): State<SharedService>, headers: HeaderMap) -> Result<Response, Response> {
    session::require(&service, &headers).await?;
    let reply = service.timeline(0).await;
    let error = reply.as_ref().err().cloned();
    let mut events = reply.map(|reply| reply.events).unwrap_or_default();
    events.reverse();
    Ok(render(&TimelinePage { frame: Frame::new(&service.status(false), true, "timeline"), events, error }))
}

/// Formats a number of bytes with a binary unit and one decimal.
pub(crate) fn size(bytes: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = *bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_a_binary_unit() {
        assert_eq!(size(&512), "512 B");
        assert_eq!(size(&(64 << 20)), "64.0 MiB");
        assert_eq!(size(&(3 << 40)), "3.0 TiB");
    }
}
