//! `report.json`: the figures of one run of the main job (`cargo xtask rig demo`).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// Every field of the report, in the order in which the demo prints them. The JSON file sorts them by name. A figure
/// that the run did not measure is `null`.
pub const FIELDS: [&str; 15] = [
    "image_bytes",
    "boot_to_api_s",
    "wizard_to_protected_s",
    "guest_boot_s",
    "failover_detect_s",
    "failover_vm_start_s",
    "survivor_io_pause_s",
    "lost_acked_writes",
    "two_runners_observed",
    "dirty_bytes",
    "resync_bytes",
    "resync_s",
    "back_to_protected_s",
    "management_rss_bytes",
    "accelerator",
];

/// The figures measured so far; times in seconds, sizes in bytes.
#[derive(Debug, Clone, Default)]
pub struct Report {
    values: Map<String, Value>,
}

impl Report {
    /// Sets a field of the report.
    ///
    /// # Panics
    /// `field` is not one of [`FIELDS`]: a typing error in a scenario.
    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        assert!(FIELDS.contains(&field), "no such field: {field}");
        self.values.insert(field.to_owned(), value.into());
    }

    /// Sets a field to a time in seconds, rounded down to milliseconds.
    pub fn set_time(&mut self, field: &str, time: Duration) {
        self.set(field, time.as_millis() as f64 / 1000.0);
    }

    /// Sets a field to `value`, unless it holds a larger number.
    pub fn set_max(&mut self, field: &str, value: u64) {
        let before = self.get(field).as_u64().unwrap_or(0);
        self.set(field, before.max(value));
    }

    /// The value of a field; `null` if it was not measured.
    pub fn get(&self, field: &str) -> Value {
        self.values.get(field).cloned().unwrap_or(Value::Null)
    }

    /// The fields that were not measured.
    pub fn missing(&self) -> Vec<&'static str> {
        FIELDS.into_iter().filter(|field| self.get(field).is_null()).collect()
    }

    /// The whole report, one object with every field.
    pub fn to_json(&self) -> Value {
        FIELDS.into_iter().map(|field| (field.to_owned(), self.get(field))).collect::<Map<_, _>>().into()
    }

    /// Writes the report to `file` as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.to_json());
        fs::write(file, text).with_context(|| format!("Cannot write {}.", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_written_and_gaps_are_named() {
        let mut report = Report::default();
        report.set_time("resync_s", Duration::from_micros(1_234_567));
        report.set("accelerator", "tcg");
        let json = report.to_json();
        assert_eq!(json.as_object().unwrap().len(), FIELDS.len());
        assert_eq!(json["resync_s"], 1.234);
        assert!(json["dirty_bytes"].is_null());
        assert_eq!(report.missing().len(), FIELDS.len() - 2);
    }

    #[test]
    fn set_max_keeps_the_larger_value() {
        let mut report = Report::default();
        report.set_max("lost_acked_writes", 2);
        report.set_max("lost_acked_writes", 1);
        assert_eq!(report.get("lost_acked_writes"), 2);
    }
}
