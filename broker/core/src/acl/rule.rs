//! One rule: what it allows or denies, where, and on which conditions.
//!
//! Invariant: a rule is about at least one of publishing and subscribing. Does not know: whom it is about.

use super::rights::PublishRights;
use super::subject::Pattern;
use super::template::Template;
use motemq_codec::QoS;

#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// In its file, from 1; 0 when a login brought it along.
    pub(super) line: u32,
    /// As it was written.
    pub(super) text: Box<str>,
    pub(super) effect: Effect,
    pub(super) tier: Tier,
    pub(super) filter: Template,
    /// Of publishing, what it is about.
    pub(super) publish: PublishRights,
    /// Of subscribing, what it is about.
    pub(super) subscribe: QosSet,
    pub(super) share: Share,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// Whether rules are decided together. In mosquitto's files `topic` lines decide before `pattern` lines are looked at.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Tier {
    First,
    /// All rules of our own format.
    Last,
}

/// Which subscriptions a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Share {
    Any,
    /// Those that are not shared.
    No,
    /// Those of groups with such names.
    Named(Pattern),
}

/// Qualities of service, one bit each.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct QosSet(u8);

impl Rule {
    /// Whether it is about subscriptions like these.
    pub(super) fn is_about_share(&self, share: Option<&str>) -> bool {
        match (&self.share, share) {
            (Share::Any, _) | (Share::No, None) => true,
            (Share::No, Some(_)) | (Share::Named(_), None) => false,
            (Share::Named(pattern), Some(name)) => pattern.matches(name),
        }
    }

    pub(super) const fn is_of_login(&self) -> bool {
        self.line == 0
    }

    pub(super) fn is_about_publishing(&self) -> bool {
        self.publish != PublishRights::NONE
    }

    /// Whether it depends on more than the topic which messages it is about.
    pub(super) fn is_about_some_subscriptions(&self) -> bool {
        self.share != Share::Any || self.subscribe != QosSet::ALL
    }
}

impl QosSet {
    pub(super) const ALL: Self = Self(0b111);
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(range: std::ops::RangeInclusive<u8>) -> Self {
        Self(range.fold(0, |bits, qos| bits | 1 << qos.min(2)))
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The highest that is not above `wish`.
    pub(super) fn highest(self, wish: QoS) -> Option<QoS> {
        let all = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
        all.into_iter()
            .filter(|qos| *qos as u8 <= wish as u8)
            .find(|qos| self.0 >> *qos as u8 & 1 == 1)
    }
}
