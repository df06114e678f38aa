//! Handler of the metrics in Prometheus text form. A figure that is not known is left out; it is never sent as zero.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{AppendHeaders, IntoResponse},
};
use dyad_api::{VmState, verdict};
use dyad_control::WitnessStatus;

use crate::{NodeHandle, snapshot::Snapshot};

pub(super) async fn metrics(State(node): State<Arc<NodeHandle>>) -> impl IntoResponse {
    let kind = AppendHeaders([(header::CONTENT_TYPE, "text/plain; version=0.0.4")]);
    (kind, text(&node.snapshot()))
}

fn text(snapshot: &Snapshot) -> String {
    let mut out = Metrics(String::new());
    out.gauge("dyad_core_up", Help("Whether dyad-core answers."), u64::from(snapshot.status.is_some()));
    if let Some(bytes) = crate::host_inventory::management_rss_bytes() {
        out.gauge("dyad_management_rss_bytes", Help("Memory of this node that is not its VMs'."), bytes);
    }
    let Some(status) = &snapshot.status else { return out.0 };
    out.gauge("dyad_protected", Help("Whether the pair is protected."), u64::from(verdict(status).protected));
    if let Some(quorum) = &status.quorum {
        out.gauge("dyad_epoch", Help("Newest epoch known here."), quorum.epoch.0);
        out.gauge("dyad_in_sync_nodes", Help("Nodes in the in-sync set."), quorum.members.len() as u64);
        out.gauge("dyad_may_run", Help("Whether VMs may run on this node."), u64::from(quorum.may_run));
        match quorum.witness {
            WitnessStatus::None => {}
            WitnessStatus::Reachable { .. } => out.gauge("dyad_witness_up", Help("Whether the witness answers."), 1),
            WitnessStatus::Unreachable { .. } => out.gauge("dyad_witness_up", Help("Whether the witness answers."), 0),
        }
    }
    if !status.links.is_empty() {
        out.head("dyad_link_up", Help("Whether this path to the other node works both ways."));
        for link in &status.links {
            let _ = writeln!(out.0, "dyad_link_up{{link=\"{}\"}} {}", escape(&link.name), u8::from(link.up));
        }
    }
    if let Some(mirror) = &status.mirror {
        out.gauge("dyad_dirty_bytes", Help("Bytes the other node lacks."), mirror.dirty_bytes);
        out.gauge("dyad_resync_bytes", Help("Bytes copied by the running or last resync."), mirror.resync_bytes);
        out.gauge(
            "dyad_healed_blocks",
            Help("Blocks healed from the other node since dyad-core started."),
            mirror.healed_blocks,
        );
    }
    if let Some(pool) = &status.pool {
        out.gauge("dyad_pool_total_bytes", Help("Room for data on this node."), pool.total_bytes);
        out.gauge("dyad_pool_used_bytes", Help("Room in use on this node."), pool.used_bytes);
        let failed = pool.disks.iter().filter(|d| !d.healthy).count();
        out.gauge("dyad_pool_failed_disks", Help("Pool disks of this node that have failed."), failed as u64);
    }
    let running = snapshot.vms.values().filter(|vm| vm.state == VmState::Running).count();
    out.gauge("dyad_running_vms", Help("VMs that run on this node."), running as u64);
    out.0
}

struct Metrics(String);

/// The explanation of a metric, in one sentence.
struct Help(&'static str);

impl Metrics {
    fn head(&mut self, name: &str, Help(help): Help) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    /// Adds a gauge without labels.
    fn gauge(&mut self, name: &str, help: Help, value: u64) {
        self.head(name, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_figures_are_left_out_and_labels_are_escaped() {
        let text = text(&Snapshot::default());
        assert!(text.contains("\ndyad_core_up 0\n"));
        assert!(!text.contains("dyad_protected"));
        assert_eq!(escape("a\"b"), "a\\\"b");
    }
}
