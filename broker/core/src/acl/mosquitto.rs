//! mosquitto's format, meaning what it means to mosquitto 2.0.
//!
//! ```text
//! topic read $SYS/#
//! user alice
//! topic [read|write|readwrite|deny] a/#
//! pattern write devices/%c/#
//! ```
//!
//! `topic` lines before the first `user` line are about anonymous clients, others about the user; `pattern` lines are about
//! everybody, wherever they stand. The topic lines of a client decide first, among themselves denials first; what they leave
//! open the patterns decide in the same way. Patterns allow nothing to a client with `+` or `#` in its name or id.
//!
//! Stricter than mosquitto: `topic read` alone is a mistake (there "read" is the topic), a name or id with `/` stands in no
//! pattern, and a shared subscription must be allowed as a whole.
//!
//! Does not know: files.

use super::error::{AclError, AclFault, Unknown};
use super::parse::{check_line, finish, lines, push};
use super::rights::PublishRights;
use super::rule::{Effect, QosSet, Rule, Share, Tier};
use super::subject::{Pattern, Subject};
use super::template::Template;
use super::{Acl, Granting};

pub(super) fn parse(text: &str) -> Result<Acl, Vec<AclError>> {
    let mut errors = Vec::new();
    let mut patterns = Vec::new();
    let mut sections = vec![(Subject::anonymous(), Vec::new())];
    for (number, line) in lines(text) {
        match check_line(line).and_then(|()| parse_line(number, line)) {
            Ok(Line::User(user)) => {
                let subject = Subject::of_user(Pattern::exact(user));
                sections.push((subject, Vec::new()));
            }
            Ok(Line::Rule(rule)) if rule.tier == Tier::Last => patterns.push(rule),
            Ok(Line::Rule(rule)) => {
                if let Some((_, rules)) = sections.last_mut() {
                    rules.push(rule);
                }
            }
            Err(fault) => push(&mut errors, number, fault),
        }
    }
    sections.push((Subject::default(), patterns));
    finish(errors, sections, |sections| {
        let mut acl = Acl::new(Granting::Delivered, Vec::new());
        for (subject, rules) in sections {
            acl.add_section(subject, rules);
        }
        acl
    })
}

pub(super) enum Line<'a> {
    User(&'a str),
    Rule(Rule),
}

pub(super) fn parse_line(number: usize, line: &str) -> Result<Line<'_>, AclFault> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_ascii();
    let tier = match word {
        "topic" => Tier::First,
        "pattern" => Tier::Last,
        "user" if rest.is_empty() => return Err(AclFault::MosquittoUserMissing),
        "user" => return Ok(Line::User(rest)),
        _ if line.starts_with('[') || matches!(word, "allow" | "deny" | "group") => {
            return Err(AclFault::NotOfMosquitto);
        }
        _ => {
            let expected = ["topic", "pattern", "user"];
            return Err(AclFault::MosquittoStart(Unknown::new(word, expected)));
        }
    };
    let (access, topic) = match rest.split_once(' ') {
        Some((access, topic)) => (access, topic.trim_ascii_start()),
        None if rest.is_empty() || ACCESSES.contains(&rest) => {
            return Err(AclFault::MosquittoTopicMissing);
        }
        None => ("readwrite", rest),
    };
    let (publishes, subscribes) = match access {
        "read" => (false, true),
        "write" => (true, false),
        "readwrite" | "deny" => (true, true),
        word => return Err(AclFault::MosquittoAccess(Unknown::new(word, ACCESSES))),
    };
    let filter = match tier {
        Tier::First => Template::fixed(topic)?,
        Tier::Last => Template::parse_mosquitto(topic)?,
    };
    Ok(Line::Rule(Rule {
        line: u32::try_from(number).unwrap_or(u32::MAX),
        text: line.into(),
        effect: match access {
            "deny" => Effect::Deny,
            _ => Effect::Allow,
        },
        tier,
        filter,
        publish: match publishes {
            true => PublishRights::ALL,
            false => PublishRights::NONE,
        },
        subscribe: match subscribes {
            true => QosSet::ALL,
            false => QosSet::NONE,
        },
        share: Share::Any,
    }))
}

const ACCESSES: [&str; 4] = ["read", "write", "readwrite", "deny"];
