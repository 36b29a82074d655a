//! Which crate of the workspace may use which: an edge that is not in this table fails.

use std::process::Command;

use serde_json::Value;

/// A crate, and the crates of the workspace that it may use.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("uring", &[]),
    ("kafka-wire", &[]),
    ("replication", &["model"]),
    ("wal-uring", &["uring"]),
    ("s3-uploader", &["model"]),
    ("bench", &["kafka-wire", "uring", "wal-uring"]),
    ("tools", &["model", "kafka-wire", "wal-uring", "s3-uploader", "uring"]),
    ("perf", &[]),
    (
        "tailrace",
        &[
            "model",
            "uring",
            "kafka-wire",
            "replication",
            "wal-uring",
            "s3-uploader",
            "tools",
            "bench (optional)",
        ],
    ),
    (
        "sim",
        &["model", "uring", "kafka-wire", "replication", "wal-uring", "s3-uploader", "tailrace"],
    ),
];

#[test]
fn the_workspace_has_only_the_listed_edges() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let faults = faults_of(&metadata);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn faults_of(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in list(&metadata["packages"]) {
        let name = text(&package["name"]);
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{name} is not in the table of crates"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            // Only the workspace's own crates are found by path; dev-dependencies count too.
            if dependency["path"].is_null() {
                continue;
            }
            let used = text(&dependency["name"]);
            let optional = format!("{used} (optional)");
            let is_optional = dependency["optional"].as_bool() == Some(true);
            let known = allowed.contains(&used)
                || is_optional && allowed.contains(&optional.as_str())
                || used == name;
            if !known {
                faults.push(format!("{name} may not use {used}"));
            }
        }
    }
    faults
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list in cargo metadata")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a name in cargo metadata")
}

#[test]
fn unlisted_edges_and_crates_are_faults() {
    let edge = |from: &str, to: &str, optional: bool| {
        let dependency = serde_json::json!({ "name": to, "path": "/w", "optional": optional });
        faults_of(&serde_json::json!({
            "packages": [{ "name": from, "dependencies": [dependency] }]
        }))
    };
    assert_eq!(edge("replication", "model", false), Vec::<String>::new());
    assert_eq!(edge("tailrace", "bench", true), Vec::<String>::new());
    assert_eq!(edge("tailrace", "bench", false), ["tailrace may not use bench"]);
    assert_eq!(edge("kafka-wire", "model", false), ["kafka-wire may not use model"]);
    assert_eq!(edge("extra", "model", false), ["extra is not in the table of crates"]);
}
