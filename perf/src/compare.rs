//! `perf compare A.json B.json`: what got worse from one run to the next.
//!
//! Reads what `tailrace bench floor`, `produce` and `reactor` write. Nothing is known of the files
//! but where the figures stand: ratios and latencies, of which less is better, and throughput and
//! shares of what a bare device does, of which more is.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not JSON: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("the files are of different kinds: {before} and {after}")]
    Kind { before: String, after: String },
    #[error("the files have no figure in common")]
    NothingInCommon,
    #[error("{field} is {value}, and cannot be compared")]
    NotPositive { field: String, value: f64 },
}

/// One figure of both files.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its path in the file, for instance `ratio.p99`.
    pub field: String,
    pub before: f64,
    pub after: f64,
    /// How much worse it got, as a percentage of what it was; negative if better.
    pub worse_percent: f64,
}

/// All figures, and what differs in how they were measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub rows: Vec<Row>,
    /// Settings that differ, as `field: before -> after`.
    pub settings: Vec<String>,
}

/// Reads a result.
pub fn read(path: &Path) -> Result<Value, CompareError> {
    let text =
        fs::read(path).map_err(|source| CompareError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| CompareError::Json { path: path.to_owned(), source })
}

/// Compares two results of the same kind, side by side.
pub fn compare(before: &Value, after: &Value) -> Result<Comparison, CompareError> {
    let kind = |value: &Value| value["kind"].as_str().unwrap_or("unnamed").to_owned();
    let kinds = (kind(before), kind(after));
    if kinds.0 != kinds.1 {
        return Err(CompareError::Kind { before: kinds.0, after: kinds.1 });
    }
    let (old, new) = (figures(before), figures(after));
    let mut rows = Vec::new();
    for (field, before) in &old {
        let Some((_, after)) = new.iter().find(|(name, _)| name == field) else { continue };
        for value in [*before, *after] {
            if value.is_nan() || value <= 0.0 {
                return Err(CompareError::NotPositive { field: field.clone(), value });
            }
        }
        let change = (after / before - 1.0) * 100.0;
        let worse_percent = if more_is_better(field) { -change } else { change };
        rows.push(Row { field: field.clone(), before: *before, after: *after, worse_percent });
    }
    if rows.is_empty() {
        return Err(CompareError::NothingInCommon);
    }
    Ok(Comparison { rows, settings: differences(&before["settings"], &after["settings"]) })
}

impl Comparison {
    /// What got worse by more than this percentage.
    pub fn worse_than(&self, percent: f64) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.worse_percent > percent)
    }

    /// As text; what got worse by more than `percent` is marked.
    pub fn table(&self, percent: f64) -> String {
        let mut text = String::new();
        for setting in &self.settings {
            let _ = writeln!(text, "differs: {setting}");
        }
        let width = self.rows.iter().map(|row| row.field.len()).max().unwrap_or_default();
        let _ = writeln!(text, "{:<width$}{:>14}{:>14}{:>10}", "", "before", "after", "worse");
        for Row { field, before, after, worse_percent } in &self.rows {
            let mark = if *worse_percent > percent { "  WORSE" } else { "" };
            let _ = writeln!(
                text,
                "{field:<width$}{before:>14.2}{after:>14.2}{worse_percent:>+9.1}%{mark}"
            );
        }
        text
    }
}

fn more_is_better(field: &str) -> bool {
    field.ends_with("_per_second") || field == "share" || field.starts_with("share.")
}

/// Ratios, latencies and throughputs, with their paths; not those of single rounds.
fn figures(value: &Value) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let wanted = (name.starts_with("ratio") && !name.contains("_max"))
            || ["latency_us", "share"].contains(&name.as_str())
            || more_is_better(name)
            || (value.is_object() && ["product", "bare"].contains(&name.as_str()));
        if wanted {
            leaves(value, name, &mut all);
        }
    }
    all.retain(|(field, _)| !field.ends_with(".requests"));
    all
}

fn leaves(value: &Value, path: &str, all: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => {
            all.extend(number.as_f64().map(|number| (path.to_owned(), number)))
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, &format!("{path}.{name}"), all);
            }
        }
        _ => {}
    }
}

fn differences(before: &Value, after: &Value) -> Vec<String> {
    // Where files lie and how busy the machine was always differs.
    let ignored = ["json", "broker", "data_dir", "load_average"];
    let fields = before.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| !ignored.contains(&name.as_str()) && after[*name] != **value)
        .map(|(name, value)| format!("{name}: {value} -> {}", after[name]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn floor(p99: f64) -> Value {
        json!({
            "kind": "floor",
            "settings": { "rate": 1000, "json": format!("{p99}") },
            "ratio": { "p50": 1.2, "p99": p99, "p99_9": 2.0 },
            "ratio_max": { "p50": 1.5 },
            "latency_us": { "echo": { "p50": 20.0 } },
            "rounds": [{ "ratio": { "p50": 9.0 } }],
        })
    }

    #[test]
    fn what_got_worse_is_found_and_marked() {
        let compared = compare(&floor(1.5), &floor(1.8)).unwrap();
        let worse: Vec<&str> = compared.worse_than(10.0).map(|row| &*row.field).collect();
        assert_eq!(worse, ["ratio.p99"]);
        assert_eq!(compared.worse_than(25.0).count(), 0);
        assert!(compared.settings.is_empty());
        let fields: Vec<&str> = compared.rows.iter().map(|row| &*row.field).collect();
        assert_eq!(fields, ["latency_us.echo.p50", "ratio.p50", "ratio.p99", "ratio.p99_9"]);
        let table = compared.table(10.0);
        assert!(
            table.lines().any(|line| line.starts_with("ratio.p99 ") && line.ends_with("WORSE"))
        );
        assert_eq!(table.matches("WORSE").count(), 1);
    }

    #[test]
    fn less_throughput_is_worse_and_more_is_better() {
        let produce = |rate: f64| json!({ "kind": "produce", "records_per_second": rate });
        let slower = compare(&produce(1000.0), &produce(800.0)).unwrap();
        assert_eq!(slower.worse_than(19.0).count(), 1);
        let faster = compare(&produce(800.0), &produce(1000.0)).unwrap();
        assert_eq!(faster.worse_than(0.0).count(), 0);
    }

    #[test]
    fn a_smaller_share_is_worse() {
        let share = |of: f64| json!({ "kind": "bandwidth", "share": { "wal": { "1m": of } } });
        let smaller = compare(&share(0.9), &share(0.8)).unwrap();
        let worse: Vec<&str> = smaller.worse_than(10.0).map(|row| &*row.field).collect();
        assert_eq!(worse, ["share.wal.1m"]);
        assert_eq!(compare(&share(0.8), &share(0.9)).unwrap().worse_than(0.0).count(), 0);
    }

    #[test]
    fn other_settings_are_told() {
        let mut other = floor(1.5);
        other["settings"]["rate"] = json!(500);
        let compared = compare(&floor(1.5), &other).unwrap();
        assert_eq!(compared.settings, ["rate: 1000 -> 500"]);
    }

    #[test]
    fn files_that_cannot_be_compared_are_refused() {
        let produce = json!({ "kind": "produce", "records_per_second": 1.0 });
        assert!(matches!(compare(&floor(1.0), &produce), Err(CompareError::Kind { .. })));
        let empty = json!({ "kind": "floor" });
        assert!(matches!(compare(&floor(1.0), &empty), Err(CompareError::NothingInCommon)));
        assert!(matches!(compare(&floor(1.0), &floor(0.0)), Err(CompareError::NotPositive { .. })));
    }
}
