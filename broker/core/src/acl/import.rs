//! A mosquitto ACL in our own format.
//!
//! Promises: nothing is allowed that mosquitto did not allow (but for the patterns that it keeps from every name with `+` or `#`);
//! what is denied beside that is said in a comment. Comments and order stay. Does not know: files.

use super::Acl;
use super::error::AclError;
use super::filter::intersects;
use super::mosquitto::{Line, parse_line};
use super::parse::check_line;
use super::rule::{Effect, Rule, Tier};
use super::template::{Piece, Template};
use super::words::quote;
use std::fmt::Write as _;

/// Writes the ACL `text`, in mosquitto's format, in our own.
///
/// # Errors
/// Every line that is wrong; a text without rules.
pub fn import_mosquitto(text: &str) -> Result<String, Vec<AclError>> {
    let acl = Acl::parse_mosquitto(text)?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut output = Output::default();
    output.text.push_str(HEAD);
    for (number, line) in (1..).zip(text.lines().map(str::trim_ascii)) {
        if line.is_empty() || line.starts_with('#') {
            output.line(line);
            continue;
        }
        let parsed = check_line(line).and_then(|()| parse_line(number, line));
        match parsed.map_err(|fault| {
            vec![AclError {
                line: number,
                fault,
            }]
        })? {
            Line::User(user) => output.user = Some(user.to_owned()),
            Line::Rule(rule) => output.rule(&acl, &rule),
        }
    }
    Ok(output.text)
}

#[derive(Default)]
struct Output {
    text: String,
    /// Whom topic lines are about; `None` is anonymous.
    user: Option<String>,
    /// The last section written.
    section: String,
}

impl Output {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn rule(&mut self, acl: &Acl, rule: &Rule) {
        let section = match (rule.tier, &self.user) {
            // mosquitto passes such a line over for clients without a user name.
            (Tier::Last, _) if rule.filter.has_user() => "[user *]".to_owned(),
            (Tier::Last, _) => "[everyone]".to_owned(),
            (Tier::First, None) => "[anonymous]".to_owned(),
            (Tier::First, Some(user)) => format!("[user {}]", quote(user)),
        };
        let line = own_line(rule);
        let is_wild = rule.tier == Tier::First && section.contains('*');
        if is_wild && rule.effect == Effect::Allow {
            let _ = writeln!(
                self.text,
                "# differs: * in a name stands for any run of characters here, so this would be about others too\n# {section} {line}"
            );
            return;
        }
        if section != self.section {
            let _ = writeln!(self.text, "{section}");
            self.section = section;
        }
        if is_wild {
            self.line("# differs: * in the name stands for any run of characters here, so others are denied this too");
        }
        let overruled = acl.rules.iter().find(|other| is_overruled(rule, other));
        if let Some(other) = overruled {
            let _ = writeln!(
                self.text,
                "# differs: this wins over line {} (\"{}\"), which won over it in mosquitto",
                other.line, other.text
            );
        }
        self.line(&line);
    }
}

/// Whether mosquitto has `deny`, a pattern, give way to `allow`, a topic line.
fn is_overruled(deny: &Rule, allow: &Rule) -> bool {
    (deny.effect, deny.tier) == (Effect::Deny, Tier::Last)
        && (allow.effect, allow.tier) == (Effect::Allow, Tier::First)
        && intersects(&widest(&deny.filter), &widest(&allow.filter))
}

/// The filter with whatever value.
fn widest(filter: &Template) -> String {
    match filter {
        Template::Fixed(filter) => filter.to_string(),
        Template::Substituted(pieces) => {
            let value = |piece: &Piece| match piece {
                Piece::Text(text) => text.clone(),
                _ => "+".into(),
            };
            let filter: String = pieces.iter().map(value).collect();
            let level = |level| {
                if str::contains(level, '+') {
                    "+"
                } else {
                    level
                }
            };
            filter.split('/').map(level).collect::<Vec<_>>().join("/")
        }
    }
}

fn own_line(rule: &Rule) -> String {
    let effect = match rule.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let action = match (rule.is_about_publishing(), !rule.subscribe.is_empty()) {
        (true, false) => "publish",
        (false, true) => "subscribe",
        _ => "all",
    };
    let own = |text: &str| text.replace('%', "%%");
    let filter = match &rule.filter {
        Template::Fixed(filter) => own(filter),
        Template::Substituted(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => own(text),
                Piece::ClientId => "%c".to_owned(),
                Piece::User => "%u".to_owned(),
                Piece::Field(name) => format!("%{{{name}}}"),
            })
            .collect(),
    };
    format!("{effect} {action} {}", quote(&filter))
}

const HEAD: &str = "\
# Translated from mosquitto's format by motemq acl import.
# differs: a SUBSCRIBE to more than one line allows is refused here; mosquitto grants it and delivers what is allowed. Where clients
# depend on that, keep the original file and name it in auth.mosquitto_acl_file.
";
