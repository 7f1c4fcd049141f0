//! Whom rules are about.
//!
//! A subject is a conjunction: every part that is given must hold. In a [`Pattern`] only `*` has a meaning: any run of
//! characters, none included. Does not know: rules.

use crate::login::Principal;
use crate::message::Identity;

/// No part: everybody.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Subject {
    pub(super) user: Option<Pattern>,
    /// By its place in the ACL.
    pub(super) group: Option<usize>,
    pub(super) client: Option<Pattern>,
    pub(super) identity: Option<IdentityIs>,
}

/// How somebody must have come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum IdentityIs {
    Anonymous,
    /// By password, SCRAM or token.
    Login(Pattern),
    Certificate(Pattern),
}

impl Subject {
    pub(super) fn of_user(user: Pattern) -> Self {
        Self {
            user: Some(user),
            ..Self::default()
        }
    }

    pub(super) fn anonymous() -> Self {
        Self {
            identity: Some(IdentityIs::Anonymous),
            ..Self::default()
        }
    }

    /// The one user outside of whom it is about nobody.
    pub(super) fn only_user(&self) -> Option<&str> {
        self.user.as_ref().and_then(Pattern::only)
    }

    /// `groups`: for each group of the ACL whether the principal is in it.
    pub(super) fn is_about(&self, principal: &Principal, groups: &[bool]) -> bool {
        let holds = |pattern: &Option<Pattern>, name: Option<&str>| match (pattern, name) {
            (None, _) => true,
            (Some(pattern), Some(name)) => pattern.matches(name),
            (Some(_), None) => false,
        };
        let in_group = |group| groups.get(group).copied().unwrap_or(false);
        holds(&self.user, principal.user())
            && holds(&self.client, Some(principal.client_id.as_str()))
            && self.group.is_none_or(in_group)
            && self
                .identity
                .as_ref()
                .is_none_or(|identity| identity.is(&principal.identity))
    }
}

impl IdentityIs {
    fn is(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Anonymous, Identity::Anonymous) => true,
            (Self::Login(pattern), Identity::User(name))
            | (Self::Certificate(pattern), Identity::Certificate(name)) => pattern.matches(name),
            _ => false,
        }
    }
}

/// Users by name, and whoever's login names the group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: Box<str>,
    pub(super) users: Vec<Pattern>,
}

impl Group {
    pub(super) fn has(&self, principal: &Principal) -> bool {
        let user = principal.user();
        principal.attributes.groups.contains(&self.name)
            || user.is_some_and(|user| self.users.iter().any(|pattern| pattern.matches(user)))
    }
}

/// Names, with `*` for any run of characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    text: Box<str>,
    has_wildcard: bool,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            has_wildcard: text.contains('*'),
        }
    }

    /// This name only, whatever it holds.
    pub(super) fn exact(name: &str) -> Self {
        Self {
            text: name.into(),
            has_wildcard: false,
        }
    }

    /// The name outside of which it matches none.
    fn only(&self) -> Option<&str> {
        (!self.has_wildcard).then_some(&self.text)
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        if !self.has_wildcard {
            return *self.text == *name;
        }
        let Some((start, rest)) = self.text.split_once('*') else {
            return false;
        };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = name.strip_prefix(start);
        let Some(mut inner) = inner.and_then(|inner| inner.strip_suffix(end)) else {
            return false;
        };
        for part in middle.split('*') {
            match inner.split_once(part) {
                Some((_, behind)) => inner = behind,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters_and_nothing_else_has_a_meaning() {
        for (pattern, name, expected) in [
            ("alice", "alice", true),
            ("alice", "Alice", false),
            ("alice", "alice2", false),
            ("meter-*", "meter-", true),
            ("meter-*", "meter-7", true),
            ("meter-*", "a meter-7", false),
            ("*-7", "meter-7", true),
            ("*-7", "meter-70", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**", "", true),
            ("*", "a/b", true),
            ("*b*b*", "ab", false),
            ("*b*b*", "abb", true),
            ("a.c", "abc", false),
            ("a?", "ab", false),
            ("[ab]", "a", false),
            ("", "", true),
            ("*é*", "aéa", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        assert!(!Pattern::exact("a*").matches("ab"));
        assert!(Pattern::exact("a*").matches("a*"));
    }
}
