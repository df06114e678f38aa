//! Prints replies as text for people, or as JSON for programs.

use dyad_api::{PairRole, StatusReply, TimelineReply, VmView, VolumeView};
use serde::Serialize;

/// Prints the value as indented JSON, or with the function for people.
pub(crate) fn print<T: Serialize>(json: bool, value: &T, for_people: impl FnOnce(&T)) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        for_people(value);
    }
    Ok(())
}

pub(crate) fn status(status: &StatusReply) {
    println!("{}", status.sentence);
    println!("protected: {}", if status.protected { "yes" } else { "no" });
    if let (Some(pair), Some(node), Some(name)) = (&status.pair, &status.node, &status.node_name) {
        let role = match status.role {
            PairRole::Blank => "not set up",
            PairRole::Lead => "leads",
            PairRole::Follower => "follows",
            PairRole::Solo => "alone in sync",
            PairRole::Behind => "not in sync",
        };
        let epoch = status.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
        println!("pair {pair}, node {name} ({node}), {role}{epoch}");
    }
    for missing in &status.missing {
        println!("missing: {missing}");
    }
    for alarm in &status.alarms {
        println!("alarm: {}", alarm.text);
    }
    if let Some(warning) = status.details.as_ref().and_then(dyad_api::Details::warning) {
        println!("warning: {warning}");
    }
}

pub(crate) fn timeline(timeline: &TimelineReply) {
    for event in &timeline.events {
        let (seconds, millis) = (event.boot_ms / 1000, event.boot_ms % 1000);
        println!(
            "{seconds:>8}.{millis:03}  {}  {:<14} {}",
            event.node.as_deref().unwrap_or("-"),
            event.kind,
            event.text
        );
    }
}

pub(crate) fn volumes(volumes: &[VolumeView]) {
    let row = |v: &VolumeView| {
        let size = format!("{} MiB", v.size >> 20);
        vec![v.name.clone(), size, v.primary.clone(), v.vm.clone().unwrap_or_else(|| "-".into())]
    };
    table(&["VOLUME", "SIZE", "PRIMARY", "VM"], volumes.iter().map(row).collect());
}

pub(crate) fn vms(vms: &[VmView]) {
    let row = |vm: &VmView| {
        let memory = format!("{} MiB", vm.memory_mib);
        vec![vm.name.clone(), word(&vm.state), word(&vm.intent), vm.node.clone(), vm.cpus.to_string(), memory]
    };
    table(&["VM", "STATE", "INTENT", "NODE", "CPUS", "MEMORY"], vms.iter().map(row).collect());
    for (name, reason) in vms.iter().filter_map(|vm| vm.reason.as_ref().map(|reason| (&vm.name, reason))) {
        println!("{name}: {reason}");
    }
}

/// The word of an enum value in the JSON of the API.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".into(),
    }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let widths: Vec<usize> = (0..head.len())
        .map(|i| rows.iter().map(|row| row[i].len()).chain([head[i].len()]).max().unwrap_or_default())
        .collect();
    let head = head.iter().map(|text| (*text).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let line: String = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}  ")).collect();
        println!("{}", line.trim_end());
    }
}
