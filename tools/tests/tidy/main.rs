//! House rules that no compiler lint knows; see each module for its own.

mod formats;
mod lexer;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

const NOT_OURS: [&str; 5] = ["target", ".git", ".cache", "node_modules", "tailrace-data"];
const DOCUMENT_LINES_MAX: usize = 300;

#[test]
fn rust_sources_keep_the_rules() {
    let files = files_ending(&root(), ".rs");
    assert!(files.len() > 10, "found only {} sources", files.len());
    let faults = files.iter().flat_map(|path| source::faults_of(&relative(path), &text_of(path)));
    report(faults.collect());
}

#[test]
fn format_documents_follow_their_codecs() {
    let documents = files_ending(&root().join("docs/formats"), ".md");
    let read = |path: &str| fs::read_to_string(root().join(path)).ok();
    let faults =
        documents.iter().flat_map(|path| formats::faults_of(&relative(path), &text_of(path), read));
    report(faults.collect());
}

#[test]
fn crates_inherit_the_workspace_lints() {
    let manifests = files_ending(&root(), "Cargo.toml");
    let faults = manifests.iter().filter(|path| {
        let text = text_of(path);
        // The reactor keeps its own table; the root and the fuzz targets are workspaces themselves.
        !relative(path).starts_with("crates/uring/")
            && !text.contains("[workspace")
            && !text.contains("[lints]\nworkspace = true")
    });
    report(faults.map(|path| format!("{}: [lints] is not inherited", relative(path))).collect());
}

#[test]
fn the_documents_exist_and_stay_short() {
    let mut faults = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        match fs::read_to_string(root().join(name)) {
            Err(error) => faults.push(format!("{name}: {error}")),
            Ok(text) if text.lines().count() > DOCUMENT_LINES_MAX => {
                faults.push(format!("{name}: more than {DOCUMENT_LINES_MAX} lines"));
            }
            Ok(_) => {}
        }
    }
    report(faults);
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools is in the workspace").to_owned()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("found under the root").display().to_string()
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_ending(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory).expect("a readable directory of the workspace");
        for entry in entries {
            let entry = entry.expect("a readable directory entry");
            let (path, name) = (entry.path(), entry.file_name().into_string());
            let name = name.unwrap_or_else(|name| panic!("{} is not UTF-8", name.display()));
            if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                pending.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
