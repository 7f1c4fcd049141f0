//! SUBSCRIBE and UNSUBSCRIBE: the router, the session's own list and the journal, in that order, under the session's lock.

use super::Broker;
use crate::acl::Rights;
use crate::action::{Action, StoredSubscription};
use crate::counters::{DropReason, Limit, Occasion, Tally};
use crate::history::Lost;
use crate::journal::Room;
use crate::limits::Limits;
use crate::login::Scope;
use crate::mailbox::Fenced;
use crate::message::Message;
use crate::record::Record;
use crate::session::{Session, SessionState};
use crate::share_group::ShareGroup;
use crate::sync::{read, write};
use crate::time::Timestamp;
use motemq_codec::{
    QoS, ReasonCode, RetainHandling, SubscribeOptions, SubscriptionFilter, is_shared,
    parse_subscription,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One filter of a SUBSCRIBE.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) filter: &'a str,
    pub(crate) options: SubscribeOptions,
    pub(crate) subscription_id: Option<u32>,
}

/// Retained messages to send for a new subscription, once it is its turn.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWish {
    pub(crate) qos: QoS,
    pub(crate) subscription_id: Option<u32>,
}

/// A retained message to send for a new subscription.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) subscription_id: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) codes: Vec<ReasonCode>,
    /// By filter: what is matched when its turn comes, so that nothing multiplies.
    pub(crate) replay: BTreeMap<Box<str>, ReplayWish>,
    /// The share groups that the session is in now.
    pub(crate) groups: Vec<Arc<ShareGroup>>,
    pub(crate) awaited: Option<Arc<Record>>,
}

#[derive(Debug, Default)]
pub(crate) struct Unsubscribed {
    pub(crate) codes: Vec<ReasonCode>,
    /// The share groups that the session is in now.
    pub(crate) groups: Vec<Arc<ShareGroup>>,
    pub(crate) awaited: Option<Arc<Record>>,
}

impl Broker {
    /// Adds subscriptions; a code per wish, in order [MQTT5-3.8.4-6].
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        wishes: &[Wish<'_>],
        qos_max: QoS,
        tally: &mut Tally,
    ) -> Result<Subscribed, Fenced> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(Fenced);
        }
        let mut result = Subscribed::default();
        let mut changed = false;
        let mut stored = Vec::new();
        let limits = state.limits.clone();
        // Under the session's lock: a change of the ACL takes it too.
        let rights = self.rights(session, &state);
        for wish in wishes {
            let checked = self
                .check_wish(wish, &state, &limits, tally)
                .and_then(|parsed| match is_reserved(parsed.filter.as_str()) {
                    true => Ok(wish.options.qos),
                    false => allowed_qos(rights.as_ref(), &parsed, wish.options.qos),
                });
            let allowed_qos = match checked {
                Ok(qos) => qos,
                Err(code) => {
                    if code == ReasonCode::NotAuthorized {
                        tally.note(Occasion::SubscribeDenied);
                    }
                    result.codes.push(code);
                    continue;
                }
            };
            let mut options = wish.options;
            options.qos = allowed_qos.min(qos_max);
            self.route(session, &mut state, Wish { options, ..*wish });
            let is_new = state.add_filter(wish.filter);
            // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
            let wants_retained = match options.retain_handling {
                RetainHandling::SendAlways => true,
                RetainHandling::SendIfNew => is_new,
                RetainHandling::DoNotSend => false,
            };
            if wants_retained && !is_shared(wish.filter) {
                let replay = ReplayWish {
                    qos: options.qos,
                    subscription_id: wish.subscription_id,
                };
                result.replay.insert(wish.filter.into(), replay);
            }
            if state.is_stored {
                stored.push(StoredSubscription {
                    filter: wish.filter.into(),
                    options,
                    subscription_id: wish.subscription_id,
                });
            }
            changed = true;
            result.codes.push(granted(options.qos));
        }
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        if !stored.is_empty() {
            let action = Action::Subscribed {
                queue: session.queue(),
                subscriptions: stored,
            };
            result.awaited = Some(self.submit(action));
        }
        result.groups.clone_from(&state.groups);
        Ok(result)
    }

    /// The retained messages for a subscription that its client may have.
    pub(crate) fn retained_for(
        &self,
        session: &Session,
        filter: &str,
        wish: &ReplayWish,
        now: Timestamp,
        tally: &mut Tally,
    ) -> VecDeque<Replay> {
        let rights = self.rights_of(session);
        let statistics = self.system_values(filter, now);
        let found = statistics.unwrap_or_else(|| read(&self.retained).matching(filter, now));
        let mut replay = VecDeque::with_capacity(found.len());
        for message in found {
            let topic = message.topic.as_str();
            if rights.as_ref().is_some_and(|rights| !rights.receive(topic)) {
                let (reason, lost) = (DropReason::NotAuthorized, Lost::Message(&message));
                let qos = message.qos.min(wish.qos);
                tally.drop_message(reason, session.client_id(), lost, qos, "");
                continue;
            }
            replay.push_back(Replay {
                qos: message.qos.min(wish.qos),
                message,
                subscription_id: wish.subscription_id,
            });
        }
        replay
    }

    fn check_wish<'a>(
        &self,
        wish: &Wish<'a>,
        state: &SessionState,
        limits: &Limits,
        tally: &mut Tally,
    ) -> Result<SubscriptionFilter<'a>, ReasonCode> {
        let parsed = parse_subscription(wish.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        let filter = parsed.filter.as_str();
        if filter.split('/').count() > limits.topic_levels_max {
            tally.reach(Limit::TopicLevels);
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let may_have = match is_reserved(filter) {
            true => parsed.share.is_none() && self.may_enrol(state, filter),
            false => state.scope != Scope::Enrolment,
        };
        if !may_have {
            return Err(ReasonCode::NotAuthorized);
        }
        let full = if state.filters.len() >= limits.subscriptions_max {
            Some(Limit::Subscriptions)
        } else if state.filter_bytes + wish.filter.len() > limits.subscription_bytes_max {
            Some(Limit::SubscriptionBytes)
        } else {
            None
        };
        let is_short = self.pressure.refuses_connections();
        let full = full.or_else(|| is_short.then_some(Limit::Memory));
        if let Some(limit) = full
            && !state.filters.contains(wish.filter.as_bytes())
        {
            tally.reach(limit);
            return Err(ReasonCode::QuotaExceeded);
        }
        if state.is_stored && self.journal.room() == Room::Full {
            tally.reach(Limit::Store);
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(parsed)
    }

    /// Removes subscriptions; a code per filter, in order [MQTT5-3.11.3-1].
    pub(crate) fn unsubscribe<'a>(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        filters: impl Iterator<Item = &'a str>,
        tally: &mut Tally,
    ) -> Result<Unsubscribed, Fenced> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(Fenced);
        }
        Ok(self.remove_subscriptions(session, &mut state, filters, tally))
    }

    /// Ends subscriptions, whoever wishes it; under the session's lock.
    pub(super) fn remove_subscriptions<'a>(
        &self,
        session: &Session,
        state: &mut SessionState,
        filters: impl Iterator<Item = &'a str>,
        tally: &mut Tally,
    ) -> Unsubscribed {
        let mut result = Unsubscribed::default();
        let mut removed: Vec<Box<str>> = Vec::new();
        for filter in filters {
            if state.remove_filter(filter) {
                if is_shared(filter) {
                    self.leave(session, state, filter, tally);
                } else {
                    write(&self.router).unsubscribe(filter, session.queue());
                }
                removed.push(filter.into());
                result.codes.push(ReasonCode::Success);
            } else {
                result.codes.push(ReasonCode::NoSubscriptionExisted);
            }
        }
        if !removed.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        if state.is_stored && !removed.is_empty() {
            let action = Action::Unsubscribed {
                queue: session.queue(),
                filters: removed,
            };
            result.awaited = Some(self.submit(action));
        }
        result.groups.clone_from(&state.groups);
        result
    }
}

/// The quality of service that the ACL allows a subscription.
fn allowed_qos(
    rights: Option<&Rights>,
    wish: &SubscriptionFilter<'_>,
    qos: QoS,
) -> Result<QoS, ReasonCode> {
    let Some(rights) = rights else {
        return Ok(qos);
    };
    let grant = rights.subscribe(wish.filter.as_str(), wish.share, qos);
    grant
        .map(|grant| grant.qos)
        .ok_or(ReasonCode::NotAuthorized)
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// Whether this filter is not for the ACL to judge: those with `$` are the broker's own, but for `$SYS` (contracts section 7).
pub(crate) fn is_reserved(filter: &str) -> bool {
    let is_system = filter == "$SYS" || filter.starts_with("$SYS/");
    filter.starts_with('$') && !is_system
}
