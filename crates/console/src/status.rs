//! The content of the status screen: first the status sentence, then the alarms and the details.

use dyad_api::verdict;
use dyad_control::{CORE_AWAY, MirrorState, Status, WatchdogStatus, WitnessStatus};
use ratatui::buffer::Buffer;
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Paragraph, Widget, Wrap};
use std::ops::Range;

/// The content of the screen that is not in the status of `dyad-core`.
#[derive(Debug, Clone, Default)]
pub struct LocalInfo {
    /// IPv4 addresses at which the web pages are served.
    pub addresses: Vec<String>,
    /// Names of the VMs that may run on this node now.
    pub vms: Vec<String>,
    /// The sentence with which a pairing code was refused; `None` if there is none to show.
    pub refusal: Option<String>,
}

/// Draws the status screen on `page`. `status` is `None` if `dyad-core` does not answer.
pub fn draw(page: &mut Buffer, status: Option<&Status>, local: &LocalInfo) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let area = page.area;
    let put = |page: &mut Buffer, row: u16, text: &str| {
        if row < area.height {
            page.set_stringn(0, row, text, usize::from(area.width), Style::new());
        }
    };
    let title = match status.and_then(|s| s.pair.as_ref()) {
        Some(pair) => format!("Dyad  {} / {} (node {})", pair.name, pair.node, pair.me),
        None => "Dyad".into(),
    };
    page.set_stringn(0, 0, title, usize::from(area.width), bold);
    let web = match local.addresses.first() {
        Some(_) => local.addresses.iter().map(|a| format!("https://{a}/")).collect::<Vec<_>>().join("  "),
        None => "no address yet".into(),
    };
    put(page, 1, &format!("Web   {web}"));
    put(page, 2, &"-".repeat(usize::from(area.width)));
    let Some(status) = status else {
        page.set_stringn(0, 4, CORE_AWAY, 80, bold);
        return;
    };
    let verdict = verdict(status);
    page.set_stringn(0, 4, if verdict.protected { "PROTECTED" } else { "NOT PROTECTED" }, 80, bold);
    paragraph(page, 5..8, &verdict.sentence);
    let mut row = 9;
    for alarm in &status.alarms {
        put(page, row, "Alarm");
        row += paragraph_at(page, 13, row..row + 2, &alarm.sentence);
    }
    // The last 4 rows are kept for the pairing code or a refusal, and for the list of keys.
    for (row, line) in (row..area.height - 4).zip(detail_lines(status, local)) {
        put(page, row, &line);
    }
    if let Some(refusal) = &local.refusal {
        paragraph(page, area.height - 3..area.height - 1, refusal);
    } else if let Some(code) = &status.pairing_code {
        page.set_stringn(0, area.height - 3, format!("Pairing code: {code}   (type it on the second node)"), 80, bold);
    }
    put(page, area.height - 1, "p: show the pairing code   e: erase this node   r: draw again");
}

/// Prints a sentence over the full width of the page, in `rows`.
fn paragraph(page: &mut Buffer, rows: Range<u16>, text: &str) {
    paragraph_at(page, 0, rows, text);
}

/// Prints a sentence to the right of `column`, in `rows`; text that does not fit is cut. Returns the number of rows used.
fn paragraph_at(page: &mut Buffer, column: u16, rows: Range<u16>, text: &str) -> u16 {
    let mut area = page.area;
    (area.x, area.width) = (column, area.width.saturating_sub(column));
    (area.y, area.height) = (rows.start, (rows.end - rows.start).min(page.area.height.saturating_sub(rows.start)));
    Paragraph::new(Text::from(ascii(text))).wrap(Wrap { trim: true }).render(area, page);
    let empty = |y: u16| (area.left()..area.right()).all(|x| page[(x, y)].symbol() == " ");
    (area.top()..area.bottom()).take_while(|y| !empty(*y)).count() as u16
}

/// The lines of the details, one for each part of the pair.
fn detail_lines(status: &Status, local: &LocalInfo) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(quorum) = &status.quorum {
        let members: Vec<String> = quorum.members.iter().map(ToString::to_string).collect();
        let run = if quorum.may_run { "yes" } else { "no" };
        lines.push(format!("In sync      {}     epoch {}", members.join(", "), quorum.epoch));
        lines.push(format!("Lead         {}     tie vote at {}     VMs may run here: {run}", quorum.lead, quorum.tie));
        let peer = status.pair.as_ref().and_then(|p| p.peer.clone()).unwrap_or_else(|| "has not joined".into());
        let alive = if quorum.peer_alive { "answers" } else { "silent" };
        lines.push(format!("Other node   {peer}     {alive}"));
        lines.push(match &quorum.witness {
            WitnessStatus::None => "Witness      none".into(),
            WitnessStatus::Reachable { address, .. } => format!("Witness      {address}     answers"),
            WitnessStatus::Unreachable { address, .. } => format!("Witness      {address}     silent"),
        });
    }
    let links: Vec<String> =
        status.links.iter().map(|l| format!("{} {}", l.name, if l.up { "up" } else { "down" })).collect();
    lines.push(format!("Links        {}", if links.is_empty() { "none".into() } else { links.join("   ") }));
    lines.push(match &status.watchdog {
        WatchdogStatus::Absent => "Watchdog     none".into(),
        WatchdogStatus::Armed { identity, timeout_s, proven } => {
            let proven = if *proven { "proven" } else { "not proven" };
            format!("Watchdog     {identity}, {timeout_s} s, {proven}")
        }
    });
    if let Some(mirror) = &status.mirror {
        let state = match mirror.state {
            MirrorState::Solo => "solo",
            MirrorState::Reconciling => "comparing journals",
            MirrorState::Resyncing => "copying what changed",
            MirrorState::InSync => "in sync",
            MirrorState::Behind => "receiving newer data",
            MirrorState::Held => "writes wait",
        };
        lines.push(format!("Mirror       {state}     {} MiB to copy", mirror.dirty_mib()));
    }
    if let Some(pool) = &status.pool {
        lines.push(format!("Pool         {} of {} MiB used", pool.used_bytes >> 20, pool.total_bytes >> 20));
    }
    let vms = if local.vms.is_empty() { "none".into() } else { local.vms.join(", ") };
    lines.push(format!("VMs here     {vms}"));
    lines.iter().map(|line| ascii(line)).collect()
}

/// Replaces each character outside of ASCII by `?`, because a serial terminal may not be able to show it.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// The IPv4 addresses at which a browser may reach this node. Empty until the node has an address.
pub fn addresses() -> Vec<String> {
    local_addresses(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())
}

/// The local addresses in `/proc/net/fib_trie`, without those of the loopback interface. Link-local addresses (169.254/16)
/// are returned only if there are no others: they are usually on the cable to the other node, where no browser is.
fn local_addresses(routes: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut last = "";
    for line in routes.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address;
        } else if line.starts_with("/32 host LOCAL") && !last.starts_with("127.") && !found.iter().any(|a| a == last) {
            found.push(last.to_owned());
        }
    }
    let (link_local, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.starts_with("169.254."));
    if others.is_empty() { link_local } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_control::{AlarmCode, Phase};
    use ratatui::layout::Rect;

    fn text(page: &Buffer) -> String {
        let width = usize::from(page.area.width);
        let symbols: Vec<&str> = page.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        symbols.chunks(width).map(|row| row.concat().trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn link_local_addresses_are_hidden_when_others_exist() {
        let routes = |addresses: &[&str]| {
            let leaf = |address: &&str| format!("        |-- {address}\n           /32 host LOCAL\n");
            // The kernel lists each table twice, and also routes that are no address of this node.
            let table: String = addresses.iter().map(leaf).collect();
            format!("Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 10.0.2.0\n        /24 link UNICAST\n{table}Local:\n{table}")
        };
        assert_eq!(local_addresses(&routes(&["10.0.2.15", "127.0.0.1", "169.254.7.7"])), ["10.0.2.15"]);
        assert_eq!(local_addresses(&routes(&["127.0.0.1", "169.254.7.7"])), ["169.254.7.7"]);
        assert!(local_addresses("").is_empty());
    }

    fn blank() -> Status {
        Status {
            permits: vec!["web".into()],
            pairing_code: Some("123456".into()),
            ..Status::without_pair(Phase::Blank, WatchdogStatus::Absent)
        }
    }

    #[test]
    fn alarms_and_refusals_are_shown_in_full() {
        let sentence = "The clocks of the nodes drift apart: no lease is granted until one is repaired.";
        let alarm = |code| dyad_control::Alarm { code, sentence: sentence.into() };
        let status = Status { alarms: vec![alarm(AlarmCode::ClockDrift), alarm(AlarmCode::Unrecognised)], ..blank() };
        let refusal = "The other node leads the pair: open the pairing code there.";
        let local = LocalInfo { refusal: Some(refusal.into()), ..LocalInfo::default() };
        let mut page = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(&mut page, Some(&status), &local);
        let shown = text(&page);
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("Alarm {sentence} Alarm {sentence} Links none")), "{shown}");
        assert!(shown.contains(refusal) && !shown.contains("123456"), "{shown}");
    }

    #[test]
    fn the_screen_says_that_the_node_is_blank_or_that_its_core_does_not_answer() {
        let mut page = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(&mut page, None, &LocalInfo::default());
        assert!(text(&page).contains(CORE_AWAY));
        let status = blank();
        let mut page = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(
            &mut page,
            Some(&status),
            &LocalInfo { addresses: vec!["192.0.2.1".into()], vms: vec!["web".into()], refusal: None },
        );
        let text = text(&page);
        assert!(text.contains("NOT PROTECTED") && text.contains("not set up"), "{text}");
        assert!(text.contains("https://192.0.2.1/") && text.contains("123456"), "{text}");
        assert!(text.is_ascii());
    }
}
