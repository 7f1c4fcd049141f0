//! The rules about one client, and what they say.
//!
//! Promises: a verdict allocates nothing and takes time in the number of these rules, which were picked and had their values put
//! in once.
//!
//! Does not know: verdicts given before; whoever asks keeps them.

use super::filter::{contains, intersects, matches};
use super::parse::login_rules;
use super::rule::{Effect, QosSet, Rule, Tier};
use super::template::{Resolved, Template};
use super::{Acl, Granting};
use crate::login::Principal;
use motemq_codec::QoS;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What one client may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rights {
    pub(super) acl: Arc<Acl>,
    pub(super) principal: Arc<Principal>,
    /// What the login brought along; counted on from the rules of the ACL.
    login: Arc<[Rule]>,
    /// By tier.
    active: Arc<[Active]>,
}

/// A rule about this client.
#[derive(Debug)]
struct Active {
    rule: usize,
    filter: ActiveFilter,
}

#[derive(Debug)]
enum ActiveFilter {
    AsWritten,
    /// With the values of this client.
    Resolved(Box<str>),
    /// Every topic: of a deny with a value that cannot be used.
    Everything,
}

impl Rights {
    pub(super) fn new(acl: &Arc<Acl>, principal: &Arc<Principal>) -> Self {
        let login = login_rules(principal).unwrap_or_default();
        let brought = acl.rules.len()..acl.rules.len() + login.len();
        let mut rights = Self {
            acl: acl.clone(),
            principal: principal.clone(),
            login: login.into(),
            active: Arc::default(),
        };
        let about = acl.rules_about(principal).into_iter().chain(brought);
        let mut active: Vec<_> = about.filter_map(|rule| rights.activate(rule)).collect();
        active.sort_by_key(|active| rights.rule(active).map(|rule| rule.tier));
        rights.active = active.into();
        rights
    }

    /// What it may publish to `topic`.
    #[must_use]
    pub fn publish(&self, topic: &str) -> PublishRights {
        let (mut granted, mut undecided) = (PublishRights::NONE, PublishRights::ALL);
        for tier in self.tiers() {
            let (mut allowed, mut denied) = (PublishRights::NONE, PublishRights::NONE);
            for active in tier {
                let Some(rule) = self.rule(active) else {
                    continue;
                };
                if rule.is_about_publishing() && active.is_about_topic(rule, topic) {
                    match rule.effect {
                        Effect::Allow => allowed = allowed.with(rule.publish),
                        Effect::Deny => denied = denied.with(rule.publish),
                    }
                }
            }
            granted = granted.with(undecided.and(allowed).without(denied));
            undecided = undecided.without(allowed).without(denied);
        }
        granted
    }

    /// Whether it may subscribe to `filter` (without `$share/name/`), as a member of `share` if that is given, and with which
    /// quality of service at most.
    #[must_use]
    pub fn subscribe(&self, filter: &str, share: Option<&str>, qos: QoS) -> Option<Grant> {
        if self.acl.granting == Granting::Delivered && share.is_none() {
            return Some(Grant { qos });
        }
        let (mut granted, mut undecided) = (QosSet::NONE, QosSet::ALL);
        for tier in self.tiers() {
            let (mut allowed, mut denied) = (QosSet::NONE, QosSet::NONE);
            for (active, rule) in self.subscribe_rules(tier, share) {
                match rule.effect {
                    Effect::Allow if active.contains(rule, filter) => {
                        allowed = allowed.with(rule.subscribe);
                    }
                    Effect::Deny if active.refuses(rule, filter, share) => {
                        denied = denied.with(rule.subscribe);
                    }
                    _ => {}
                }
            }
            granted = granted.with(undecided.and(allowed).without(denied));
            undecided = undecided.without(allowed).without(denied);
        }
        let qos = granted.highest(qos)?;
        Some(Grant { qos })
    }

    /// Whether messages of `topic` may be delivered to it.
    #[must_use]
    pub fn receive(&self, topic: &str) -> bool {
        self.receive_rule(topic)
            .is_some_and(|rule| rule.effect == Effect::Allow)
    }

    /// Whether an MQTT 3.1.1 client is told that a publish was taken although it was denied, as mosquitto does; else it is
    /// disconnected, because that version has no other way to say no.
    #[must_use]
    pub fn acknowledges_denied(&self) -> bool {
        self.acl.granting == Granting::Delivered
    }

    /// The rule that decides whether messages of `topic` may be delivered.
    pub(super) fn receive_rule(&self, topic: &str) -> Option<&Rule> {
        self.tiers().find_map(|tier| {
            let mut allow = None;
            for active in tier {
                let rule = self.rule(active)?;
                if rule.subscribe.is_empty() || !active.is_about_topic(rule, topic) {
                    continue;
                }
                match rule.effect {
                    Effect::Allow => allow = allow.or(Some(rule)),
                    // Which subscription a message is for is not known here: SUBSCRIBE has refused those that it is about.
                    Effect::Deny if rule.is_about_some_subscriptions() => {}
                    Effect::Deny => return Some(rule),
                }
            }
            allow
        })
    }

    /// The rule that decides whether this may be published.
    pub(super) fn publish_rule(&self, topic: &str, qos: QoS, retain: bool) -> Option<&Rule> {
        self.tiers().find_map(|tier| {
            let about = tier
                .iter()
                .filter_map(|active| Some((active, self.rule(active)?)))
                .filter(|(_, rule)| rule.publish.allows(qos, retain))
                .filter(|(active, rule)| active.is_about_topic(rule, topic));
            deciding(about.map(|(_, rule)| rule))
        })
    }

    /// The rule that decides whether this may be subscribed to with exactly this quality of service.
    pub(super) fn subscribe_rule(
        &self,
        filter: &str,
        share: Option<&str>,
        qos: QoS,
    ) -> Option<&Rule> {
        self.tiers().find_map(|tier| {
            let about = self
                .subscribe_rules(tier, share)
                .filter(|(_, rule)| rule.subscribe.highest(qos) == Some(qos))
                .filter(|(active, rule)| match rule.effect {
                    Effect::Allow => active.contains(rule, filter),
                    Effect::Deny => active.refuses(rule, filter, share),
                });
            deciding(about.map(|(_, rule)| rule))
        })
    }

    /// Whether `rule` has a value in it that cannot be used for this client.
    pub(super) fn is_widened(&self, rule: &Rule) -> bool {
        matches!(rule.filter.resolve(&self.principal), Resolved::Unusable(_))
    }

    fn subscribe_rules<'a>(
        &'a self,
        tier: &'a [Active],
        share: Option<&str>,
    ) -> impl Iterator<Item = (&'a Active, &'a Rule)> {
        tier.iter()
            .filter_map(|active| Some((active, self.rule(active)?)))
            .filter(move |(_, rule)| !rule.subscribe.is_empty() && rule.is_about_share(share))
    }

    fn tiers(&self) -> impl Iterator<Item = &[Active]> {
        let tier = |active: &Active| self.rule(active).map(|rule| rule.tier);
        self.active
            .chunk_by(move |one, other| tier(one) == tier(other))
    }

    fn rule(&self, active: &Active) -> Option<&Rule> {
        self.rule_at(active.rule)
    }

    fn rule_at(&self, index: usize) -> Option<&Rule> {
        let rules = &self.acl.rules;
        let brought = || self.login.get(index - rules.len());
        rules.get(index).or_else(brought)
    }

    /// Puts the values of this client into a rule; `None` when it then says nothing.
    fn activate(&self, index: usize) -> Option<Active> {
        let rule = self.rule_at(index)?;
        if self.acl.granting == Granting::Delivered
            && is_skipped_by_mosquitto(rule, &self.principal)
        {
            return None;
        }
        let filter = match (rule.filter.resolve(&self.principal), rule.effect) {
            (Resolved::Fixed, _) => ActiveFilter::AsWritten,
            (Resolved::Filter(filter), _) => ActiveFilter::Resolved(filter),
            (Resolved::Unusable(_), Effect::Allow) => return None,
            (Resolved::Unusable(Some(covering)), Effect::Deny) => ActiveFilter::Resolved(covering),
            (Resolved::Unusable(None), Effect::Deny) => ActiveFilter::Everything,
        };
        Some(Active {
            rule: index,
            filter,
        })
    }
}

/// mosquitto skips patterns with `%u` for clients without a user name, denials too, and patterns allow nothing to clients whose
/// name or id could be a wildcard.
fn is_skipped_by_mosquitto(rule: &Rule, principal: &Principal) -> bool {
    if rule.tier == Tier::First || rule.is_of_login() {
        return false;
    }
    let user = principal.user();
    let names = user.into_iter().chain([principal.client_id.as_str()]);
    let is_wild = names.into_iter().any(|name| name.contains(['+', '#']));
    (is_wild && rule.effect == Effect::Allow) || (user.is_none() && rule.filter.has_user())
}

/// A deny, else an allow.
fn deciding<'a>(rules: impl Iterator<Item = &'a Rule>) -> Option<&'a Rule> {
    let mut allow = None;
    for rule in rules {
        match rule.effect {
            Effect::Deny => return Some(rule),
            Effect::Allow => allow = allow.or(Some(rule)),
        }
    }
    allow
}

impl Active {
    fn is_about_topic(&self, rule: &Rule, topic: &str) -> bool {
        self.is_about(rule, |filter| matches(filter, topic))
    }

    fn contains(&self, rule: &Rule, inner: &str) -> bool {
        self.is_about(rule, |filter| contains(filter, inner))
    }

    /// Whether a deny refuses a subscription. Where the delivery cannot decide, it is enough that they have a topic in common: of
    /// a deny about some subscriptions only, and of a shared subscription, because what one member is offered and may not have
    /// would be lost to the others.
    fn refuses(&self, rule: &Rule, inner: &str, share: Option<&str>) -> bool {
        match rule.is_about_some_subscriptions() || share.is_some() {
            true => self.is_about(rule, |filter| intersects(filter, inner)),
            false => self.contains(rule, inner),
        }
    }

    fn is_about(&self, rule: &Rule, test: impl FnOnce(&str) -> bool) -> bool {
        match (&self.filter, &rule.filter) {
            (ActiveFilter::Everything, _) => true,
            (ActiveFilter::Resolved(filter), _)
            | (ActiveFilter::AsWritten, Template::Fixed(filter)) => test(filter),
            (ActiveFilter::AsWritten, Template::Substituted(_)) => false,
        }
    }
}

/// With which qualities of service, and whether with RETAIN, a client may publish to a topic.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PublishRights(u8);

impl PublishRights {
    /// Everything.
    pub const ALL: Self = Self(0b0011_1111);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Whether a PUBLISH like this is allowed.
    #[must_use]
    pub const fn allows(self, qos: QoS, retain: bool) -> bool {
        self.0 >> (qos as u8 + 3 * retain as u8) & 1 == 1
    }

    pub(super) fn of(qos: RangeInclusive<u8>, retain: Option<bool>) -> Self {
        let bits = QosSet::of(qos).bits();
        Self(match retain {
            Some(false) => bits,
            Some(true) => bits << 3,
            None => bits | bits << 3,
        })
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A subscription that is allowed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The highest quality of service, not above the wish.
    pub qos: QoS,
}
