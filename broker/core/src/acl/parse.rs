//! Our own format.
//!
//! ```text
//! # a comment
//! group operators = alice, bob, ops-*
//!
//! [everyone]
//! allow publish devices/%c/up/# qos<=1 retain=no
//! allow subscribe devices/%c/down/#
//!
//! [group operators]
//! allow all #
//! deny publish "a topic/with blanks"
//! ```
//!
//! Groups come first; a section says whom the rules below it are about, as a conjunction: `everyone`, `anonymous`, `user NAME`,
//! `group NAME`, `client ID`, `certificate NAME` (came in by certificate), `login NAME` (by password, SCRAM or token). Names may
//! have `*` in them. All mistakes are found at once.
//!
//! Does not know: files.

use super::error::{AclError, AclFault, Unknown};
use super::rights::PublishRights;
use super::rule::{Effect, QosSet, Rule, Share, Tier};
use super::subject::{Group, IdentityIs, Pattern, Subject};
use super::template::Template;
use super::words::Words;
use super::{Acl, Granting, LINE_BYTES_MAX, RULES_MAX};
use crate::login::Principal;
use std::ops::RangeInclusive;

pub(super) fn parse(text: &str) -> Result<Acl, Vec<AclError>> {
    let mut reader = Reader::default();
    for (number, line) in lines(text) {
        if let Err(fault) = reader.read(number, line) {
            push(&mut reader.errors, number, fault);
        }
    }
    finish(reader.errors, reader.sections, |sections| {
        let mut acl = Acl::new(Granting::Contained, reader.groups);
        for (subject, rules) in sections {
            acl.add_section(subject, rules);
        }
        acl
    })
}

/// Notes a mistake; that the whole file is of the other format is said once.
pub(super) fn push(errors: &mut Vec<AclError>, line: usize, fault: AclFault) {
    let is_other =
        |fault: &AclFault| matches!(fault, AclFault::OfMosquitto(_) | AclFault::NotOfMosquitto);
    if !is_other(&fault) || !errors.iter().any(|error| is_other(&error.fault)) {
        errors.push(AclError { line, fault });
    }
}

/// The lines that are no comments, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

pub(super) fn check_line(line: &str) -> Result<(), AclFault> {
    if line.len() > LINE_BYTES_MAX {
        return Err(AclFault::LineTooLong);
    }
    let is_forbidden = |letter: char| letter.is_control() && letter != '\t';
    match line.contains(is_forbidden) {
        true => Err(AclFault::ControlCharacter),
        false => Ok(()),
    }
}

/// Makes an ACL of sections, unless there is a mistake in them.
pub(super) fn finish(
    mut errors: Vec<AclError>,
    sections: Vec<(Subject, Vec<Rule>)>,
    build: impl FnOnce(Vec<(Subject, Vec<Rule>)>) -> Acl,
) -> Result<Acl, Vec<AclError>> {
    let rules: usize = sections.iter().map(|(_, rules)| rules.len()).sum();
    let of_all = |fault| AclError { line: 0, fault };
    if rules > RULES_MAX {
        errors.push(of_all(AclFault::TooManyRules));
    }
    if rules == 0 && errors.is_empty() {
        errors.push(of_all(AclFault::NoRules));
    }
    match errors.is_empty() {
        true => Ok(build(sections)),
        false => Err(errors),
    }
}

/// The rules that a login brings along; if one is wrong, none counts.
pub(super) fn login_rules(principal: &Principal) -> Result<Vec<Rule>, AclFault> {
    let lines = principal.attributes.rules.iter();
    lines.map(|line| login_rule(line)).collect()
}

fn login_rule(line: &str) -> Result<Rule, AclFault> {
    check_line(line)?;
    let rule = parse_rule(0, line)?;
    match rule.effect {
        Effect::Allow => Ok(rule),
        Effect::Deny => Err(AclFault::LoginDenies),
    }
}

#[derive(Default)]
struct Reader {
    groups: Vec<Group>,
    sections: Vec<(Subject, Vec<Rule>)>,
    errors: Vec<AclError>,
}

impl Reader {
    fn read(&mut self, number: usize, line: &str) -> Result<(), AclFault> {
        check_line(line)?;
        if line.starts_with('[') {
            let subject = self.parse_header(line);
            // The rules below a wrong header have a section all the same.
            let (subject, fault) = match subject {
                Ok(subject) => (subject, Ok(())),
                Err(fault) => (Subject::default(), Err(fault)),
            };
            self.sections.push((subject, Vec::new()));
            return fault;
        }
        if line.split_whitespace().next() == Some("group") {
            return self.read_group(line);
        }
        let rule = parse_rule(number, line)?;
        let (_, rules) = self.sections.last_mut().ok_or(AclFault::NoSection)?;
        rules.push(rule);
        Ok(())
    }

    fn read_group(&mut self, line: &str) -> Result<(), AclFault> {
        let mut words = Words::new(line, &['=', ',']);
        let _ = words.next()?;
        let name = words.next()?.filter(|name| is_name(name));
        let name = name.ok_or(AclFault::GroupDefinition)?;
        if words.next()?.as_deref() != Some("=") {
            return Err(AclFault::GroupDefinition);
        }
        let mut users = Vec::new();
        while let Some(user) = words.next()? {
            if !is_name(&user) {
                return Err(AclFault::GroupDefinition);
            }
            users.push(Pattern::new(&user));
            match words.next()?.as_deref() {
                None | Some(",") => {}
                Some(_) => return Err(AclFault::GroupDefinition),
            }
        }
        match self.groups.iter_mut().find(|group| *group.name == *name) {
            Some(group) => group.users.extend(users),
            None => self.groups.push(Group {
                name: name.into(),
                users,
            }),
        }
        match self.sections.is_empty() {
            true => Ok(()),
            false => Err(AclFault::GroupAfterSection),
        }
    }

    fn parse_header(&self, line: &str) -> Result<Subject, AclFault> {
        let inner = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'));
        let mut words = Words::all(inner.ok_or(AclFault::HeaderOpen)?)?.into_iter();
        let mut subject = Subject::default();
        let mut is_everyone = false;
        let mut count = 0;
        while let Some(word) = words.next() {
            count += 1;
            let Some(word) = HEADER_WORDS.into_iter().find(|known| **known == *word) else {
                return Err(AclFault::HeaderWord(unknown_header_word(&word)));
            };
            if word == "everyone" {
                is_everyone = true;
                continue;
            }
            if word == "anonymous" {
                put(&mut subject.identity, IdentityIs::Anonymous, "anonymous")?;
                continue;
            }
            let name = words.next().filter(|name| !name.is_empty());
            let name = name.ok_or(AclFault::HeaderName(word))?;
            let pattern = Pattern::new(&name);
            match word {
                "user" => put(&mut subject.user, pattern, word)?,
                "client" => put(&mut subject.client, pattern, word)?,
                "certificate" => {
                    put(
                        &mut subject.identity,
                        IdentityIs::Certificate(pattern),
                        word,
                    )?;
                }
                "login" => put(&mut subject.identity, IdentityIs::Login(pattern), word)?,
                _ => put(&mut subject.group, self.group(&name)?, word)?,
            }
        }
        let is_anonymous = subject.identity == Some(IdentityIs::Anonymous);
        match count {
            0 => Err(AclFault::HeaderEmpty),
            1 => Ok(subject),
            _ if is_everyone => Err(AclFault::HeaderNobody("everyone")),
            _ if is_anonymous && subject.user.is_some() => Err(AclFault::HeaderNobody("anonymous")),
            _ => Ok(subject),
        }
    }

    fn group(&self, name: &str) -> Result<usize, AclFault> {
        let found = self.groups.iter().position(|group| *group.name == *name);
        let names = self.groups.iter().map(|group| &*group.name);
        found.ok_or_else(|| AclFault::Group(Unknown::new(name, names)))
    }
}

/// Not empty, and no mark.
fn is_name(word: &str) -> bool {
    !matches!(word, "" | "," | "=")
}

fn put<T>(place: &mut Option<T>, value: T, word: &'static str) -> Result<(), AclFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(AclFault::HeaderTwice(word)),
    }
}

fn unknown_header_word(word: &str) -> Unknown {
    match word {
        "*" | "all" | "everybody" | "any" => Unknown::meaning(word, "everyone"),
        _ => Unknown::new(word, HEADER_WORDS),
    }
}

pub(super) fn parse_rule(number: usize, line: &str) -> Result<Rule, AclFault> {
    let mut words = Words::all(line)?.into_iter();
    let effect = match words.next().as_deref() {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        Some(word) => return Err(unknown_start(word, line)),
        None => return Err(AclFault::FilterMissing),
    };
    let action = words.next().ok_or(AclFault::FilterMissing)?;
    let (publishes, subscribes) = match &*action {
        "publish" => (true, false),
        "subscribe" => (false, true),
        "all" => (true, true),
        word => return Err(AclFault::Action(unknown_action(word))),
    };
    let filter = words.next().ok_or(AclFault::FilterMissing)?;
    let filter = Template::parse(&filter)?;
    let mut conditions = Conditions::default();
    for word in words {
        conditions.read(&word)?;
    }
    if conditions.retain.is_some() && subscribes {
        return Err(AclFault::ConditionElsewhere("retain", "publish"));
    }
    if conditions.share.is_some() && publishes {
        return Err(AclFault::ConditionElsewhere("share", "subscribe"));
    }
    let qos = conditions.qos()?;
    Ok(Rule {
        line: u32::try_from(number).unwrap_or(u32::MAX),
        text: line.into(),
        effect,
        tier: Tier::Last,
        filter,
        publish: match publishes {
            true => PublishRights::of(qos.clone(), conditions.retain),
            false => PublishRights::NONE,
        },
        subscribe: match subscribes {
            true => QosSet::of(qos),
            false => QosSet::NONE,
        },
        share: conditions.share.unwrap_or(Share::Any),
    })
}

fn unknown_start(word: &str, line: &str) -> AclFault {
    match word {
        "topic" if line.contains("deny") => AclFault::OfMosquitto("deny all TOPIC"),
        "topic" | "pattern" if line.contains("readwrite") => {
            AclFault::OfMosquitto("allow all TOPIC")
        }
        "topic" | "pattern" if line.contains("read") => {
            AclFault::OfMosquitto("allow subscribe TOPIC")
        }
        "topic" | "pattern" if line.contains("write") => {
            AclFault::OfMosquitto("allow publish TOPIC")
        }
        "topic" | "pattern" => AclFault::OfMosquitto("allow all TOPIC"),
        "user" => AclFault::OfMosquitto("[user NAME]"),
        _ => AclFault::LineStart(Unknown::new(word, ["allow", "deny", "group"])),
    }
}

fn unknown_action(word: &str) -> Unknown {
    match word {
        "write" | "pub" => Unknown::meaning(word, "publish"),
        "read" | "sub" | "receive" => Unknown::meaning(word, "subscribe"),
        "readwrite" | "both" | "pubsub" => Unknown::meaning(word, "all"),
        _ => Unknown::new(word, ["publish", "subscribe", "all"]),
    }
}

/// What a rule depends on besides the topic.
#[derive(Default)]
struct Conditions {
    qos_min: Option<u8>,
    qos_max: Option<u8>,
    retain: Option<bool>,
    share: Option<Share>,
}

impl Conditions {
    fn read(&mut self, word: &str) -> Result<(), AclFault> {
        let at = word.find(['<', '>', '=']).unwrap_or(word.len());
        let (name, test) = word.split_at(at);
        match name {
            "qos" => self.read_qos(test),
            "retain" => {
                let retain = match test {
                    "=yes" => true,
                    "=no" => false,
                    _ => return Err(AclFault::ConditionValue("retain=yes or retain=no")),
                };
                set(&mut self.retain, retain, "retain")
            }
            "share" => {
                let share = match test.strip_prefix('=') {
                    Some("no") => Share::No,
                    Some(name) if !name.is_empty() && !name.contains(['/', '+', '#']) => {
                        Share::Named(Pattern::new(name))
                    }
                    _ => {
                        let values = "share=NAME (with * for any run of characters) or share=no";
                        return Err(AclFault::ConditionValue(values));
                    }
                };
                set(&mut self.share, share, "share")
            }
            _ => Err(AclFault::Condition(Unknown::new(
                name,
                ["qos", "retain", "share"],
            ))),
        }
    }

    fn read_qos(&mut self, test: &str) -> Result<(), AclFault> {
        let wrong = AclFault::ConditionValue("qos<=N, qos>=N or qos=N with N 0, 1 or 2");
        let number = test.trim_start_matches(['<', '>', '=']);
        let (test, qos) = match number {
            "0" => (test.trim_end_matches('0'), 0),
            "1" => (test.trim_end_matches('1'), 1),
            "2" => (test.trim_end_matches('2'), 2),
            _ => return Err(wrong),
        };
        match test {
            "<=" => set(&mut self.qos_max, qos, "qos<="),
            ">=" => set(&mut self.qos_min, qos, "qos>="),
            "=" => {
                set(&mut self.qos_min, qos, "qos")?;
                set(&mut self.qos_max, qos, "qos")
            }
            _ => Err(wrong),
        }
    }

    fn qos(&self) -> Result<RangeInclusive<u8>, AclFault> {
        let range = self.qos_min.unwrap_or(0)..=self.qos_max.unwrap_or(2);
        match range.is_empty() {
            true => Err(AclFault::ConditionNever),
            false => Ok(range),
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), AclFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(AclFault::ConditionTwice(name)),
    }
}

const HEADER_WORDS: [&str; 7] = [
    "everyone",
    "anonymous",
    "user",
    "group",
    "client",
    "certificate",
    "login",
];
