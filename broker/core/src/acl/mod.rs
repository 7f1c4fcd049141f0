//! What clients may publish, subscribe to and receive.
//!
//! An [`Acl`] is a set of rules; the [`Rights`] of a client are those of them that are about it. Invariants:
//! - A deny wins over every allow; the order of rules does not matter. What no rule allows is denied, once there are rules.
//! - A filter is granted only if one allow contains it and no deny does; where a deny holds a part of it, and where an ACL
//!   decides by delivery alone (mosquitto's files), each topic is looked at when a message is to be delivered.
//! - A shared subscription is granted only if no deny holds any part of it, in mosquitto's files too: what one member is offered
//!   and may not have would be lost to the others.
//! - Names are compared byte by byte: no case folding, no normalisation, no regular expressions.
//! - A substituted value that is absent, or holds `+`, `#`, `/`, U+0000 or another control character, or is empty, or starts with
//!   `$` where the filter starts with it, makes an allow match nothing, and a deny everything that it could be about.
//!
//! Does not know: files, connections, `$` topics (they are refused elsewhere, whatever the rules say).

mod decision;
mod error;
mod filter;
mod import;
mod mosquitto;
mod parse;
mod rights;
mod rule;
mod subject;
mod template;
mod words;

pub use decision::Decision;
pub use error::{AclError, AclFault};
pub use import::import_mosquitto;
pub use rights::{Grant, PublishRights, Rights};
pub(crate) use subject::Pattern;

use crate::login::{Attributes, Principal};
use hashbrown::HashMap;
use rule::Rule;
use std::ops::Range;
use std::sync::Arc;
use subject::{Group, Subject};

/// The rules of one ACL file, or their absence.
#[derive(Debug, Default)]
pub struct Acl {
    granting: Granting,
    groups: Vec<Group>,
    sections: Vec<Section>,
    /// The sections about one user only, by the user's name.
    by_user: HashMap<Box<str>, Vec<usize>>,
    /// The other sections.
    by_search: Vec<usize>,
    rules: Vec<Rule>,
}

/// How a SUBSCRIBE is decided.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
enum Granting {
    /// Everything is allowed: there are no rules.
    #[default]
    Open,
    /// A filter must be contained in what is allowed.
    Contained,
    /// Every filter is granted, and each message decided when it is delivered.
    Delivered,
}

/// Rules about the same clients.
#[derive(Debug)]
struct Section {
    subject: Subject,
    rules: Range<usize>,
}

impl Acl {
    /// No rules: everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// Reads an ACL in our own format.
    ///
    /// # Errors
    /// Every line that is wrong; a text without rules.
    pub fn parse(text: &str) -> Result<Self, Vec<AclError>> {
        parse::parse(text)
    }

    /// Reads an ACL in mosquitto's format. Every SUBSCRIBE is granted, as mosquitto does, and decided by delivery.
    ///
    /// # Errors
    /// Every line that is wrong; a text without rules.
    pub fn parse_mosquitto(text: &str) -> Result<Self, Vec<AclError>> {
        mosquitto::parse(text)
    }

    /// How many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// What `principal` may do; `None` when that is everything.
    #[must_use]
    pub fn rights(self: &Arc<Self>, principal: &Arc<Principal>) -> Option<Rights> {
        (!self.is_open_to(&principal.attributes)).then(|| Rights::new(self, principal))
    }

    /// Whether a client with such a login may do everything.
    pub(crate) fn is_open_to(&self, login: &Attributes) -> bool {
        self.granting == Granting::Open && login.rules.is_empty()
    }

    fn new(granting: Granting, groups: Vec<Group>) -> Self {
        Self {
            granting,
            groups,
            ..Self::default()
        }
    }

    /// Adds `rules`, all about `subject`.
    fn add_section(&mut self, subject: Subject, rules: impl IntoIterator<Item = Rule>) {
        let start = self.rules.len();
        self.rules.extend(rules);
        let index = self.sections.len();
        match subject.only_user() {
            Some(user) => self.by_user.entry(user.into()).or_default().push(index),
            None => self.by_search.push(index),
        }
        self.sections.push(Section {
            subject,
            rules: start..self.rules.len(),
        });
    }

    /// The rules about `principal`, by index.
    fn rules_about(&self, principal: &Principal) -> Vec<usize> {
        let is_member = |group: &Group| group.has(principal);
        let groups: Vec<bool> = self.groups.iter().map(is_member).collect();
        let by_user = principal.user().and_then(|user| self.by_user.get(user));
        let sections = by_user.into_iter().flatten().chain(&self.by_search);
        let about = sections
            .filter_map(|index| self.sections.get(*index))
            .filter(|section| section.subject.is_about(principal, &groups));
        about.flat_map(|section| section.rules.clone()).collect()
    }
}

/// Rules of one ACL.
const RULES_MAX: usize = 100_000;
/// Bytes of one line.
const LINE_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
