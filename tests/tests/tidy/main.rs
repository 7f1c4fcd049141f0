//! Holds the source tree to its own rules: crate graph, module docs, leftovers, and (in `statements`) citations.
//!
//! Reads files and `cargo metadata`, compiles nothing. A failure names file and line. Does not know: formatting and lints
//! (rustfmt and clippy have those), `deploy/motemq.toml` (checked where the configuration is read).

#![expect(clippy::unwrap_used, reason = "tests may fail by panicking")]

mod sources;
mod statements;

use serde_json::Value;
use sources::{root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_crates_depend_on_each_other_as_designed() {
    let graph = crate_graph("normal");
    let of = |name: &str| graph.get(name).cloned().unwrap_or_default();
    assert_eq!(of("motemq-codec"), set(&[]));
    assert_eq!(of("motemq-core"), set(&["motemq-codec"]));
    assert_eq!(of("motemq-certs"), set(&[]));
    assert_eq!(
        of("motemq"),
        set(&[
            "motemq-certs",
            "motemq-codec",
            "motemq-core",
            "motemq-tcp-info"
        ])
    );
    assert_eq!(of("motemq-tcp-info"), set(&[]));
    // The simulator must not share a mistake with the broker.
    assert!(of("motemq-sim").is_subset(&set(&["motemq-certs"])));
    let tests = of("motemq-tests");
    assert!(
        tests.is_subset(&set(&[
            "motemq",
            "motemq-certs",
            "motemq-core",
            "motemq-codec"
        ])),
        "{tests:?}"
    );
    assert_eq!(graph.len(), 7, "a new crate needs its line here: {graph:?}");
}

#[test]
fn development_dependencies_keep_to_the_crates_that_stand_alone() {
    let graph = crate_graph("dev");
    for name in [
        "motemq-codec",
        "motemq-core",
        "motemq-tcp-info",
        "motemq-certs",
        "motemq-sim",
    ] {
        assert_eq!(graph.get(name), Some(&set(&[])), "{name}");
    }
    let tests = graph.get("motemq-tests").cloned().unwrap_or_default();
    let outside = set(&["motemq-certs", "motemq-sim"]);
    assert!(tests.is_subset(&outside), "{tests:?}");
}

#[test]
fn mqttbytes_is_the_simulators_codec_and_not_the_brokers() {
    let users: Vec<String> = packages()
        .iter()
        .filter(|package| dependencies(package, "normal").contains("mqttbytes"))
        .map(|package| text(&package["name"]))
        .collect();
    assert_eq!(users, ["motemq-sim"]);
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    let official = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let other: Vec<&str> = sources.filter(|line| *line != official).collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn every_module_says_what_it_promises() {
    let without: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|source| !source.is_unit_tests() && !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(without.is_empty(), "no //! at the top of {without:?}");
}

#[test]
fn there_is_no_commented_out_code() {
    let found = find_lines(is_commented_out_code);
    assert!(
        found.is_empty(),
        "code in comments (or a comment that ends like code):\n{}",
        found.join("\n")
    );
}

#[test]
fn nothing_is_left_to_do() {
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let found = find_lines(|line| macros.iter().any(|name| line.contains(name)));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Inside the broker everything is MQTT 5; a file more that asks for the version is a design decision. Counters have it as a label.
#[test]
fn the_core_asks_for_the_protocol_version_in_few_files() {
    let files: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("broker/core/src"))
        .filter(|source| source.text.contains("ProtocolVersion"))
        .map(|source| source.path)
        .collect();
    assert!(files.len() <= 5, "{files:?}");
}

#[test]
fn the_links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        let local = targets
            .map(|(target, _)| target.split('#').next().unwrap_or_default())
            .filter(|target| !target.contains("://") && !target.is_empty());
        broken.extend(
            local
                .filter(|target| !root().join(target).exists())
                .map(|target| format!("{document}: {target}")),
        );
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(is_commented_out_code(
        ["    //", "let x = 1;"].join(" ").as_str()
    ));
    assert!(is_commented_out_code(["//", "}"].concat().as_str()));
    assert!(!is_commented_out_code("    /// An `if x {` in a document;"));
    assert!(!is_commented_out_code(
        "// Prose that ends with a full stop."
    ));
    assert!(!is_commented_out_code("let url = \"mqtt://host\";"));
}

/// The dependencies of a kind among the workspace's own crates.
fn crate_graph(kind: &str) -> BTreeMap<String, BTreeSet<String>> {
    let packages = packages();
    let ours: BTreeSet<String> = packages
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let own = |package| &dependencies(package, kind) & &ours;
    packages
        .iter()
        .map(|package| (text(&package["name"]), own(package)))
        .collect()
}

fn dependencies(package: &Value, kind: &str) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().unwrap();
    let kind_of = |dependency: &Value| {
        let kind = dependency["kind"].as_str();
        kind.unwrap_or("normal").to_owned()
    };
    all.iter()
        .filter(|dependency| kind_of(dependency) == kind)
        .map(|dependency| text(&dependency["name"]))
        .collect()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn find_lines(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let wrong = source.lines().filter(|(_, line)| is_wrong(line));
        found.extend(wrong.map(|(number, line)| {
            let place = source.path.display();
            format!("{place}:{number}: {}", line.trim())
        }));
    }
    found
}

fn is_commented_out_code(line: &str) -> bool {
    let Some(comment) = line.trim().strip_prefix("//") else {
        return false;
    };
    let is_plain = !comment.starts_with(['/', '!']);
    is_plain && (comment.ends_with([';', '{', '}']) || comment.trim_start().starts_with("#["))
}
