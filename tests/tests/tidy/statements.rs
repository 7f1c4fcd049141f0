//! Every normative statement is cited by a test or excused in a line, every trap has its test.
//!
//! The ids are in `tests/data/statement-ids.txt`, the excuses in `tests/data/statement-excuses.txt`. A citation is the id in
//! brackets in a comment: before a function it is that function's, inside one that one's. The list of all of them:
//! `cargo test -p motemq-tests --test tidy -- --nocapture statements_are_listed`. Does not know: whether a test checks what
//! it cites; that is for who reads it.

use crate::sources::{Source, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Which tests cite an id.
type Citations = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_statement_is_cited_by_a_test_or_excused() {
    let (known, excuses, cited) = (known_ids(), excuses(), cited_by_tests());
    let mut wrong = Vec::new();
    for id in &known {
        match (cited.contains_key(id), excuses.contains_key(id)) {
            (false, false) => wrong.push(format!("{id}: neither cited by a test nor excused")),
            (true, true) => wrong.push(format!("{id}: cited and excused")),
            _ => {}
        }
    }
    for (id, reason) in &excuses {
        if !known.contains(id) {
            wrong.push(format!("{id}: excused, but no such statement"));
        }
        if reason.split_whitespace().count() < 3 {
            wrong.push(format!("{id}: `{reason}` is no reason"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_cited_statement_exists() {
    let known: BTreeSet<String> = known_ids().into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.lines() {
            let cited = citations(line).into_iter();
            let unknown = cited.filter(|id| !known.contains(id));
            wrong.extend(unknown.map(|id| format!("{}:{number}: {id}", source.path.display())));
        }
    }
    assert!(wrong.is_empty(), "no such statement:\n{}", wrong.join("\n"));
}

/// The sixty rules that brokers miss most easily, from the notes; "Trap 37", "traps 20 and 21" in a comment cite them.
#[test]
fn every_trap_has_its_test() {
    let mut cited = BTreeSet::new();
    for source in sources() {
        cited.extend(comments(source.test_code()).flat_map(traps));
    }
    let missing: Vec<u32> = (1..=60).filter(|trap| !cited.contains(trap)).collect();
    assert!(missing.is_empty(), "no test for the traps {missing:?}");
    assert!(cited.last() <= Some(&60), "{cited:?}");
}

/// The list, to read.
#[test]
fn statements_are_listed() {
    let (known, excuses, cited) = (known_ids(), excuses(), cited_by_tests());
    for id in &known {
        let tests = cited.get(id).into_iter().flatten();
        let tests: Vec<&str> = tests.map(String::as_str).collect();
        let excuse = excuses.get(id).map(String::as_str).unwrap_or_default();
        println!("{id:17} {}{excuse}", tests.join(", "));
    }
    println!(
        "{} statements: {} cited by tests, {} excused",
        known.len(),
        cited.len(),
        excuses.len()
    );
}

#[test]
fn citations_are_seen() {
    let cited = ["[MQTT5-", "3.8.4-8] and [MQTT3-", "6.0-1] [MQTT-", "1.2]"].concat();
    assert_eq!(
        citations(&cited),
        ["MQTT5-3.8.4-8", "MQTT3-6.0-1", "MQTT-1.2"]
    );
    assert_eq!(
        traps("/// Trap 3. Traps 20, 21 and 5: a trap for 7"),
        [3, 20, 21, 5]
    );
    let mut found = Citations::new();
    let text = [
        "/// [MQTT5-",
        "1-1]\n#[test]\nfn one() {\n    // [MQTT5-",
        "1-2]\n}\n/// [MQTT5-",
        "1-3]\npub fn two<T>() {",
    ];
    note("f.rs", &text.concat(), &mut found);
    let found: Vec<_> = found.into_iter().collect();
    let expected = [("1-1", "one"), ("1-2", "one"), ("1-3", "two")].map(|(id, test)| {
        let tests = BTreeSet::from([format!("f.rs {test}")]);
        (format!("MQTT5-{id}"), tests)
    });
    assert_eq!(found, expected);
}

fn cited_by_tests() -> Citations {
    let mut found = Citations::new();
    for source in sources() {
        note(&place(&source), source.test_code(), &mut found);
    }
    found
}

/// The path without what every path has.
fn place(source: &Source) -> String {
    let path = source.path.display().to_string();
    path.replace("tests/tests/", "").replace("/src/", "/")
}

/// Adds the citations in `text`, each with its function.
fn note(place: &str, text: &str, found: &mut Citations) {
    let (mut function, mut waiting) = (String::new(), Vec::new());
    for line in text.lines() {
        let code = line.trim();
        if let Some(name) = function_name(code) {
            function = name.to_owned();
            for id in waiting.drain(..) {
                add(found, id, place, &function);
            }
        } else if code.starts_with("///") {
            waiting.extend(citations(code));
        } else if code.starts_with("//") && !code.starts_with("//!") {
            for id in citations(code) {
                add(found, id, place, &function);
            }
        }
    }
}

fn add(found: &mut Citations, id: String, place: &str, function: &str) {
    let tests = found.entry(id).or_default();
    tests.insert(format!("{place} {function}"));
}

fn function_name(code: &str) -> Option<&str> {
    let words = ["pub ", "pub(crate) ", "pub(super) ", "async ", "const "];
    let code = words
        .iter()
        .fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
    let name = code.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.trim_start().starts_with("//"))
}

/// The numbers that follow the word "trap" or "traps".
fn traps(line: &str) -> Vec<u32> {
    let lower = line.to_ascii_lowercase();
    let after = lower.split("trap").skip(1);
    after
        .flat_map(|rest| {
            let list = rest.strip_prefix('s').unwrap_or(rest);
            let list = list.replace(" and ", ", ");
            let numbers = list.trim_start().split(", ").map_while(|item| {
                let end = item.find(|c: char| !c.is_ascii_digit());
                let digits = &item[..end.unwrap_or(item.len())];
                digits.parse().ok()
            });
            numbers.collect::<Vec<u32>>()
        })
        .collect()
}

/// The ids in `[MQTT5-…]`, in order; whatever else stands in such brackets comes out too and is unknown.
fn citations(text: &str) -> Vec<String> {
    let starts = text.split("[MQTT").skip(1);
    let ids = starts.filter_map(|rest| rest.split_once(']'));
    ids.filter(|(id, _)| id.bytes().all(|b| b.is_ascii_digit() || b".-".contains(&b)))
        .map(|(id, _)| format!("MQTT{id}"))
        .collect()
}

fn known_ids() -> Vec<String> {
    let ids: Vec<String> = data_lines("statement-ids.txt").collect();
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id is listed twice");
    assert_eq!(ids.len(), 395);
    ids
}

fn excuses() -> BTreeMap<String, String> {
    let mut excuses = BTreeMap::new();
    for line in data_lines("statement-excuses.txt") {
        let (id, reason) = line.split_once(' ').unwrap_or((&line, ""));
        let old = excuses.insert(id.to_owned(), reason.to_owned());
        assert_eq!(old, None, "{id} is excused twice");
    }
    excuses
}

fn data_lines(file: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(root().join("tests/data").join(file)).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines
        .into_iter()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}
